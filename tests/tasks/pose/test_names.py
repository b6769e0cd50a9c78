"""Which key point is the mirror image of which."""

from tasks.data.figures import NAMES
from tasks.pose.names import mirrored, sigmas_of

COCO = [
    "nose",
    "left_eye",
    "right_eye",
    "left_ear",
    "right_ear",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
]


def test_cocos_persons():
    assert mirrored(COCO) == (0, *(i + 1 if i % 2 else i - 1 for i in range(1, 17)))
    expected = [0.26, 0.25, 0.35, 0.79, 0.72, 0.62, 1.07, 0.87, 0.89]
    assert [round(10 * s, 3) for s in sigmas_of(COCO)[::2]] == expected


def test_swapping_twice_changes_nothing():
    odd = ["left", "right", "Left Paw", "right paw", "leftmost", "L", "tail", "r_fin", "l_fin"]
    for names in (COCO, NAMES, odd):
        swap = mirrored(names)
        assert [swap[swap[i]] for i in range(len(names))] == list(range(len(names)))
    assert mirrored(odd) == (1, 0, 3, 2, 4, 5, 6, 8, 7)
