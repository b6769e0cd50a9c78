"""What an exception or an exit code says: memory ran out, or the device is lost."""

from __future__ import annotations

import signal
import sys

#: torch's CPU allocator, the CUDA runtime and cuBLAS raise plain RuntimeErrors; so do we, where
#: another process of several had no memory.
_NO_MEMORY = (
    "can't allocate memory",
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on either device.

    Example:
        >>> out_of_memory(MemoryError()), out_of_memory(RuntimeError("shapes differ"))
        (True, False)
    """
    if isinstance(error, MemoryError):
        return True
    # where torch was never imported, none of its exceptions can have been raised
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _NO_MEMORY)


def killed_for_memory(exit_code: int | None) -> bool:
    """Whether a process ended as the system ends one when memory runs out: by SIGKILL.

    Example:
        >>> killed_for_memory(-9), killed_for_memory(1)
        (True, False)
    """
    return exit_code == -signal.SIGKILL


def device_lost(error: BaseException) -> bool:
    """Whether an exception is a CUDA error that sticks: nothing runs in this process after it.

    After an illegal access, a failed assertion or a hang every later call of the process fails,
    whoever makes it; want of memory leaves the device as it was.

    Example:
        >>> device_lost(RuntimeError("CUDA error: an illegal memory access was encountered"))
        True
        >>> device_lost(RuntimeError("CUDA error: out of memory"))
        False
    """
    if out_of_memory(error) or not isinstance(error, RuntimeError):
        return False
    torch = sys.modules.get("torch")
    accelerator = getattr(torch, "AcceleratorError", ())
    return isinstance(error, accelerator) or "CUDA error" in str(error)
