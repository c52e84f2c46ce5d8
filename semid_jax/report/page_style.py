"""How the page looks."""

STYLE = """
:root {
  --ink: #1f2833; --soft: #5b6673; --line: #e3e7ec; --back: #f6f7f9; --blue: #0072b2;
  --warm: #d55e00;
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--back); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
}
main { max-width: 1080px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 26px; margin: 0 0 4px; }
h2 { font-size: 19px; margin: 40px 0 12px; }
h3 { font-size: 15px; margin: 0 0 8px; }
p { margin: 6px 0; max-width: 76ch; }
.soft { color: var(--soft); }
.note { border-left: 3px solid var(--warm); background: #fff; padding: 8px 14px; margin: 14px 0; }
.tiles { display: flex; flex-wrap: wrap; gap: 12px; margin: 20px 0 0; }
.tile {
  background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: 12px 18px;
  min-width: 150px;
}
.tile b { display: block; font-size: 24px; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: 13px; }
.card {
  background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: 16px 18px;
  margin: 0 0 16px; overflow-x: auto;
}
.grid { columns: 300px; column-gap: 16px; }
.grid > .card { margin: 0 0 16px; break-inside: avoid; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(430px, 1fr)); gap: 16px; }
figure {
  margin: 0; background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: 14px;
}
figure.wide { grid-column: 1 / -1; }
figure img { max-width: 100%; display: block; margin: 0 auto; }
figcaption { color: var(--soft); font-size: 13px; margin-top: 8px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th {
  text-align: left; color: var(--soft); font-weight: 600; border-bottom: 1px solid var(--line);
  padding: 4px 14px 6px 0; white-space: nowrap;
}
td { border-bottom: 1px solid #f0f2f5; padding: 5px 14px 5px 0; vertical-align: top; }
tr:last-child td { border-bottom: 0; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
tr.highlight td { background: #eef6fb; }
td:first-child, th:first-child { padding-left: 6px; }
.user { display: grid; grid-template-columns: minmax(0, 5fr) minmax(0, 4fr); gap: 24px; }
.user .full { grid-column: 1 / -1; }
.user .full img { max-width: min(100%, 760px); display: block; }
@media (max-width: 820px) {
  .user { grid-template-columns: 1fr; }
  .figures { grid-template-columns: 1fr; }
}
.weight {
  display: grid; grid-template-columns: 90px 1fr 52px; gap: 8px; align-items: center;
  margin: 3px 0; font-size: 14px;
}
.weight i {
  display: block; height: 10px; border-radius: 5px;
  background: linear-gradient(to right, var(--blue) var(--share), #e6eaee var(--share));
}
code { font: 12.5px/1.5 ui-monospace, "DejaVu Sans Mono", monospace; white-space: nowrap; }
code .moved {
  background: #fde6d8; color: #8f3d00; border-radius: 3px; padding: 0 2px; font-weight: 600;
}
code .coarse { color: var(--blue); font-weight: 600; }
.hit { color: var(--blue); font-weight: 600; }
.scroll { overflow-x: auto; }
footer { color: var(--soft); font-size: 13px; margin-top: 40px; }
pre {
  background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: 10px 14px;
  overflow-x: auto; font: 12.5px/1.5 ui-monospace, "DejaVu Sans Mono", monospace;
}
"""
