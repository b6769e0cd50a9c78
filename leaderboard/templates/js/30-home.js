// The first page: three choices lead to a card, and the overview is searched.
if (document.getElementById("choose-task")) {
  const { boards, first } = convboard.data("index");
  const [task, host, time] = ["task", "host", "time"].map((name) => document.getElementById(`choose-${name}`));
  const unique = (values) => [...new Set(values)];

  function choose(board, key) {
    convboard.options(task, unique(boards.map((b) => b.task)).map((t) => [t, t]));
    task.value = board.task;
    convboard.options(host, boards.filter((b) => b.task === board.task).map((b) => [b.name, b.host]));
    host.value = board.name;
    convboard.options(time, board.times.length
      ? board.times : [["", "nothing was timed here"]]);
    if (board.times.some(([known]) => known === key)) time.value = key;
  }

  async function show() {
    const board = boards.find((b) => b.name === host.value);
    const opening = board.name === first && time.selectedIndex === 0;
    convboard.keep(opening ? {} : { b: board.name, t: time.value });
    const { cards } = await convboard.load(board.name);
    if (host.value === board.name) document.getElementById("card").innerHTML = cards[time.value];
  }

  function read() {
    const given = convboard.view();
    const board = boards.find((b) => b.name === given.b) ?? boards.find((b) => b.name === first);
    choose(board, given.t ?? "");
    if (given.b) show();
  }

  task.addEventListener("change", () => { choose(boards.find((b) => b.task === task.value)); show(); });
  host.addEventListener("change", () => { choose(boards.find((b) => b.name === host.value)); show(); });
  time.addEventListener("change", show);
  addEventListener("hashchange", read);
  read();

  const find = document.getElementById("find-board");
  const rows = [...document.getElementById("grid").tBodies[0].rows].map((row) => [row, row.cells[0].textContent.toLowerCase()]);
  find.addEventListener("input", () => {
    const words = find.value.toLowerCase().split(/\s+/);
    for (const [row, text] of rows) row.hidden = !words.every((word) => text.includes(word));
  });
}
