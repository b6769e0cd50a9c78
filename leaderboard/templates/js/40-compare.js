// Two operators side by side, on every board that has both.
if (document.getElementById("compare")) {
  const { make } = convboard;
  const boards = convboard.data("index").boards;
  const arms = [...new Set(boards.flatMap((board) => board.arms))].sort();
  const [one, other] = ["a", "b"].map((id) => document.getElementById(`arm-${id}`));
  for (const select of [one, other]) convboard.options(select, arms.map((arm) => [arm, arm]));
  const signed = (value, places = 2) => `${value > 0 ? "+" : ""}${value.toFixed(places)}`.replace("-", "−");
  const bounds = ([, low, high], text) => `[${text(low)}, ${text(high)}]`;

  // the pair as it was asked for: stored once, in the order of the names
  function turned(pair, ahead) {
    const back = (v) => (v ? (ahead ? v : [-v[0], -v[2], -v[1]]) : null);
    const under = (v) => (ahead ? v : [1 / v[0], 1 / v[2], 1 / v[1]]);
    return {
      score: back(pair.score),
      sure: ahead ? pair.sure : -pair.sure,
      times: Object.fromEntries(Object.entries(pair.times)
        .map(([key, time]) => [key, { ...time, ratio: under(time.ratio), within: time.bounds[ahead ? 0 : 1] }])),
    };
  }

  function said(pair) {
    if (!pair.score) return "no interval";
    if (pair.sure) return pair.sure > 0 ? "surely better" : "surely worse";
    return "can't be told apart";
  }

  // the usual time; the others a click away
  function folded([usual, ...others]) {
    if (!usual) return ["—", make("small", {}, "not timed in one run")];
    if (!others.length) return [usual];
    return [usual, make("details", {}, make("summary", {}, `${others.length} more`), ...others)];
  }

  function sentence(a, b, counts, all) {
    const boardsOf = (count) => `${count} of ${all} board${all === 1 ? "" : "s"}`;
    const [better, worse] = [counts["surely better"], counts["surely worse"]];
    const open = counts["can't be told apart"];
    if (!better && !worse) {
      const where = open < all ? boardsOf(open) : all === 1 ? "the one board that has both" : `any of ${all} boards`;
      return open ? `${a} and ${b} can't be told apart on ${where}.`
        : `Too few seeds to tell ${a} and ${b} apart.`;
    }
    const words = [better ? `better than ${b} on ${boardsOf(better)}` : "", worse ? `worse ${better ? "" : `than ${b} `}on ${boardsOf(worse)}` : ""];
    return `${a} is surely ${words.filter(Boolean).join(", and surely ")}${open ? `; on ${open} they can't be told apart` : ""}.`;
  }

  async function show() {
    const [a, b] = [one.value, other.value];
    convboard.keep({ a, b });
    const place = document.getElementById("compare");
    const verdict = document.getElementById("verdict");
    const shared = boards.filter((board) => board.arms.includes(a) && board.arms.includes(b));
    if (a === b || !shared.length) {
      verdict.textContent = a === b ? "Choose two different operators." : `No board has both ${a} and ${b}.`;
      place.replaceChildren();
      return;
    }
    const loaded = await Promise.all(shared.map((board) => convboard.load(board.name)));
    if (one.value !== a || other.value !== b) return;
    const ahead = a < b;
    const counts = { "surely better": 0, "surely worse": 0, "can't be told apart": 0, "no interval": 0 };
    const usual = new Map(); // what boards share was measured once, and counts once
    const body = make("tbody");
    shared.forEach((board, index) => {
      const { pairs } = loaded[index];
      const pair = turned(pairs.pairs[ahead ? `${a} ${b}` : `${b} ${a}`], ahead);
      const word = said(pair);
      counts[word] += 1;
      const times = board.times.map(([key]) => [key, pairs.times[key]]).map(([key, words]) => {
        const time = pair.times[key];
        if (!time) return null;
        const { ratio, steady, within } = time;
        const quick = !steady ? "too noisy to judge" : ratio[2] < 1 ? "faster" : ratio[1] > 1 ? "slower" : "not clear";
        return make("div", {}, `${ratio[0].toFixed(2)}× `,
          make("small", {}, `${within}, ${quick}: ${words}`));
      }).filter(Boolean);
      const first = board.times.find(([key]) => pair.times[key]);
      if (first) usual.set(`${pair.times[first[0]].run} ${first[0]}`, Math.log(pair.times[first[0]].ratio[0]));
      const arm = (name) => {
        const fact = pairs.arms[name];
        return make("td", { class: "num" }, make("a", { href: fact.page }, fact.score), make("small", {}, fact.interval),
          make("small", {}, `rank ${fact.rank}; ${fact.params} weights`), make("small", {}, `${fact.macs} MACs`));
      };
      body.append(make("tr", {},
        make("th", { scope: "row", class: "text" }, make("a", { href: `boards/${board.name}.html` }, board.task),
          make("small", {}, `${board.host}; ${pairs.metric}`)),
        arm(a), arm(b),
        make("td", { class: "num" }, pair.score ? `${signed(pair.score[0])} ${pairs.unit}` : "—",
          make("small", {}, pair.score ? bounds(pair.score, signed) : ""), make("small", {}, word)),
        make("td", { class: "text" }, ...folded(times))));
    });
    const head = make("tr", {}, ...["Board", a, b, `${a} minus ${b}`, `Time of ${a} ÷ time of ${b}`]
      .map((words, index) => make("th", index % 4 ? { scope: "col" } : { scope: "col", class: "text" }, words)));
    place.replaceChildren(make("thead", {}, head), body);
    convboard.cards(place);
    const logs = [...usual.values()];
    const mean = logs.length ? Math.exp(logs.reduce((sum, log) => sum + log, 0) / logs.length) : null;
    const over = logs.length > 1 ? ` (geometric mean over ${logs.length} networks, of the first time that each row shows)` : "";
    verdict.textContent = sentence(a, b, counts, shared.length)
      + (mean ? ` ${a} takes ${mean.toFixed(2)}× the time of ${b}${over}.` : "");
  }

  function read() {
    const given = convboard.view();
    one.value = arms.includes(given.a) ? given.a : arms[0] ?? "";
    other.value = arms.includes(given.b) ? given.b : arms[1] ?? "";
    if (arms.length > 1) show();
  }
  for (const select of [one, other]) select.addEventListener("change", show);
  document.getElementById("turn").addEventListener("click", () => {
    [one.value, other.value] = [other.value, one.value];
    show();
  });
  addEventListener("hashchange", read);
  read();
}
