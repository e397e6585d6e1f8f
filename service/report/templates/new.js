const $ = (id) => document.getElementById(id);
let datasets = [];
let asked = 0;

async function call(path, options) {
  const answer = await fetch(path, options);
  const found = await answer.json();
  if (!answer.ok) throw new Error((found.errors || []).map((each) => `${each.field}: ${each.message}`).join("\n") || found.detail);
  return found;
}

function tell(...lines) {
  $("told").replaceChildren(...lines.map(([text, kind]) => {
    const line = document.createElement("p");
    line.className = kind;
    line.textContent = text;
    return line;
  }));
}

function option(value, text) {
  const made = document.createElement("option");
  made.value = value;
  made.textContent = text;
  return made;
}

function spec() {
  const found = {name: $("name").value.trim(), data: {dataset: $("dataset").value}};
  if ($("target").value) found.data.target = $("target").value;
  if ($("preset").value) found.space = {preset: $("preset").value};
  if ($("trials").value) found.budget = {trials: Number($("trials").value)};
  return found;
}

function json(body) {
  return {method: "POST", headers: {"content-type": "application/json"}, body: JSON.stringify(body)};
}

// What a submit would answer, shown before it is sent; the latest change counts.
async function plan() {
  const mine = ++asked;
  $("go").disabled = true;
  if (!$("dataset").value) return tell();
  try {
    const found = await call("/v1/studies/dry-run", json(spec()));
    if (mine !== asked) return;
    const {plan, data, warnings} = found;
    const left = data.rows - data.used;
    tell(
      [`${data.used} rows${left ? `, ${left} left out` : ""}; ${found.spec.task}, by ${found.spec.metric}; ` +
        `${found.spec.budget.trials} trials search ${plan.searched.join(", ")}.`, ""],
      ...[...warnings, ...data.notes.filter((note) => !warnings.includes(note))].map((text) => [text, "note"]),
    );
    $("go").disabled = false;
  } catch (error) {
    if (mine === asked) tell([error.message, "wrong"]);
  }
}

function choose() {
  const found = datasets.find((each) => each.id === $("dataset").value);
  const columns = found && !found.built_in && found.format !== "npz" && found.format !== "zip" ? found.columns : [];
  $("target-label").hidden = !columns.length;
  $("target").replaceChildren(...columns.map((column) => option(column.name, `${column.name} (${column.kind}, ${column.distinct} values)`)));
  if (columns.length) $("target").value = columns.at(-1).name;
  return plan();
}

async function load(chosen) {
  datasets = await call("/v1/datasets");
  $("dataset").replaceChildren(option("", "…"), ...datasets.map((each) => option(each.id, `${each.name} (${each.rows} rows)`)));
  $("dataset").value = chosen || "";
  return choose();
}

async function give(told, options) {
  tell([told, "note"]);
  try {
    const made = await call("/v1/datasets", options);
    $("name").value = made.name.replace(/\.[^.]*$/, "");
    await load(made.id);
  } catch (error) {
    tell([error.message, "wrong"]);
  }
}

$("file").addEventListener("change", () => {
  const file = $("file").files[0];
  if (!file) return;
  const form = new FormData();
  form.append("file", file);
  give(`Uploading ${file.name} …`, {method: "POST", body: form});
});
$("address").addEventListener("change", () => {
  const address = $("address").value.trim();
  if (address) give(`Fetching ${address} …`, json({address}));
});
$("address").addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault();  // it would submit the study
  event.target.blur();
});
for (const id of ["target", "name", "preset", "trials"]) $(id).addEventListener("change", plan);
$("dataset").addEventListener("change", choose);
$("study").addEventListener("submit", async (event) => {
  event.preventDefault();
  $("go").disabled = true;
  try {
    const made = await call("/v1/studies", json(spec()));
    location.assign(`/studies/${made.id}`);
  } catch (error) {
    tell([error.message, "wrong"]);
    $("go").disabled = false;
  }
});
load().catch((error) => tell([error.message, "wrong"]));
