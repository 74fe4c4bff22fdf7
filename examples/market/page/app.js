/**
 * The live page of the market: one connection to one fork at a time. The client keeps the
 * subscribed rows; this file draws them, at most once per animation frame however many
 * commits arrive in between.
 */
import { connect } from "/tine/client.js";

const DATABASE = "market";
const QUERIES = ["house", "policy", "good", "agent", "auction", "sale"].map(
  table => `SELECT * FROM ${table}`
);
const AGENTS_SHOWN = 16;
const LOTS_SHOWN = 18;
const SALES_SHOWN = 12;
const PRICES_SHOWN = 60;
const FORKS_REFRESH_MS = 2_000;
const RECONNECT_MS = 500;

const element = id => document.getElementById(id);
const number = value => Number(value).toLocaleString("en");

/** The connection on show, and its fork. A late answer of an earlier one is ignored. */
let shown = { fork: "main", connection: null };
let drawn = true;
let updates = 0;
const freshLots = new Set();

async function show(fork) {
  shown.connection?.close();
  const mine = { fork, connection: null };
  shown = mine;
  freshLots.clear();
  markForks();
  state("connecting", `joining ${fork}`);
  try {
    const connection = await connect({
      database: fork === "main" ? DATABASE : `${DATABASE}@${fork}`,
      onClose: () => lost(mine),
    });
    if (shown !== mine) return connection.close();
    mine.connection = connection;
    connection.onChange(change => changed(mine, change));
    await connection.subscribe(QUERIES);
    if (shown !== mine) return;
    state("live", `live on ${fork}`);
    document.body.dataset.fork = fork;
    draw();
  } catch {
    lost(mine);
  }
}

function lost(which) {
  if (shown !== which || which.lost) return;
  which.lost = true;
  state("lost", "reconnecting");
  setTimeout(() => shown === which && show(which.fork), RECONNECT_MS);
}

function changed(which, { tables }) {
  if (shown !== which) return;
  updates += 1;
  const lots = tables.get("auction");
  for (const { id } of lots?.inserts ?? []) freshLots.add(id);
  for (const { new: lot } of lots?.updates ?? []) freshLots.add(lot.id);
  draw();
}

function state(name, text) {
  const status = element("status");
  status.dataset.state = name;
  status.textContent = text;
}

function draw() {
  if (!drawn) return;
  drawn = false;
  requestAnimationFrame(() => {
    drawn = true;
    if (shown.connection && document.body.dataset.fork === shown.fork) render(shown.connection);
  });
}

function render(connection) {
  const rows = table => [...connection.rows(table)];
  const [house] = rows("house");
  const [policy] = rows("policy");
  const goods = rows("good").sort((a, b) => a.id - b.id);
  const agents = rows("agent").sort((a, b) => order(b.coins, a.coins));
  const lots = rows("auction").sort((a, b) => order(a.id, b.id));
  const sales = rows("sale").sort((a, b) => order(b.id, a.id));
  const names = new Map(agents.map(agent => [agent.id, agent.name]));
  if (house) renderTotals(house, agents, lots);
  if (policy) element("policy").textContent = policyText(policy);
  renderGoods(goods, sales);
  renderLots(lots, goods, names);
  renderAgents(agents);
  renderSales(sales, goods, names);
  freshLots.clear();
}

function order(a, b) {
  return a < b ? -1 : a > b ? 1 : 0;
}

function policyText({ name, fee, floor, step, second }) {
  const terms = [`fee ${fee / 100} %`, `raise ${step} %`];
  if (floor > 0) terms.push(`reserve at least ${floor} % of the last price`);
  terms.push(second ? "the winner pays the second price" : "the winner pays the bid");
  return `${name}: ${terms.join(" · ")}`;
}

function renderTotals(house, agents, lots) {
  const held = agents.reduce((sum, { coins }) => sum + coins, 0n);
  const escrow = lots.reduce((sum, { best }) => sum + best, 0n);
  const balanced = held + escrow + house.coins === house.minted;
  element("held").textContent = number(held);
  element("escrow").textContent = number(escrow);
  element("fees").textContent = number(house.coins);
  element("minted").textContent = number(house.minted);
  const books = element("books");
  books.textContent = balanced ? "balanced" : "off";
  books.dataset.balanced = String(balanced);
}

function renderGoods(goods, sales) {
  fill(element("goods"), goods, good => {
    const prices = sales
      .filter(sale => sale.good === good.id)
      .slice(0, PRICES_SHOWN)
      .map(sale => Number(sale.price) / sale.units)
      .reverse();
    const card = node("div", { className: "good" });
    card.style.setProperty("--tint", `var(--${good.name})`);
    card.innerHTML = `<header><span class="name"></span><b></b></header>${sparkline(prices)}
      <small></small>`;
    card.querySelector(".name").textContent = good.name;
    card.querySelector("b").textContent = number(good.last);
    card.querySelector("small").textContent =
      `${number(good.sales)} sales · ${number(good.units)} crates · ${number(good.coins)} coins`;
    return card;
  });
}

function sparkline(prices) {
  if (prices.length < 2) return `<svg viewBox="0 0 100 40"></svg>`;
  const top = Math.max(...prices);
  const bottom = Math.min(...prices, top * 0.8);
  const points = prices.map((price, index) => {
    const x = (index / (prices.length - 1)) * 100;
    const y = 38 - ((price - bottom) / (top - bottom || 1)) * 34;
    return `${x.toFixed(2)} ${y.toFixed(2)}`;
  });
  const line = `M${points.join("L")}`;
  return `<svg viewBox="0 0 100 40" preserveAspectRatio="none" aria-hidden="true">
    <path class="area" d="${line}L100 40L0 40Z"/><path d="${line}"/></svg>`;
}

function renderLots(lots, goods, names) {
  const hot = [...lots].sort((a, b) => b.bids - a.bids || order(a.id, b.id)).slice(0, LOTS_SHOWN);
  element("open-count").textContent = `${lots.length} open, hottest first`;
  const nowMicros = BigInt(Date.now()) * 1000n;
  fill(element("floor"), hot, lot => {
    const good = goods.find(({ id }) => id === lot.good)?.name ?? String(lot.good);
    const row = node("tr", { className: freshLots.has(lot.id) ? "fresh" : "" });
    row.dataset.auction = lot.id;
    row.dataset.best = lot.best;
    row.style.setProperty("--tint", `var(--${good})`);
    const leftMs = Math.max(0, Number((lot.closes - nowMicros) / 1000n));
    const bar = node("i", { title: `${leftMs} ms` });
    bar.style.width = `${Math.min(100, leftMs / 100)}%`;
    row.append(
      node("td", { className: "lot", textContent: good }),
      node("td", { textContent: `${lot.units}` }),
      node("td", { className: "number", textContent: lot.best ? number(lot.best) : "–" }),
      node("td", { className: "number", textContent: `${lot.bids}` }),
      node("td", { textContent: lot.bidder ? (names.get(lot.bidder) ?? "?") : "" }),
      node("td", { className: "clock" })
    );
    row.lastChild.append(bar);
    return row;
  });
}

function renderAgents(agents) {
  const most = Number(agents[0]?.coins || 1n);
  element("agent-count").textContent = `${agents.length}, by coins`;
  fill(element("agents"), agents.slice(0, AGENTS_SHOWN), agent => {
    const line = node("div", { className: "agent" });
    line.dataset.agent = agent.id;
    const bar = node("i");
    bar.style.width = `${Math.max(1, (Number(agent.coins) / most) * 100)}%`;
    line.append(
      node("span", { className: "name", textContent: agent.name }),
      node("span"),
      node("span", { className: "number", textContent: number(agent.coins) })
    );
    line.children[1].append(bar);
    line.title = `${agent.bids} bids, bought ${agent.bought}, sold ${agent.sold} crates`;
    return line;
  });
}

function renderSales(sales, goods, names) {
  fill(element("sales"), sales.slice(0, SALES_SHOWN), sale => {
    const good = goods.find(({ id }) => id === sale.good)?.name ?? String(sale.good);
    const line = node("li");
    line.dataset.sale = sale.id;
    line.append(
      node("span", {
        textContent: `${names.get(sale.buyer) ?? "?"} bought ${sale.units} ${good} of ${names.get(sale.seller) ?? "?"}`,
      }),
      node("span", { className: "price", textContent: number(sale.price) })
    );
    return line;
  });
}

function node(tag, properties = {}) {
  return Object.assign(document.createElement(tag), properties);
}

function fill(parent, rows, make) {
  parent.replaceChildren(...rows.map(make));
}

/** The forks that exist now; the buttons are rebuilt only when the list changed. */
async function refreshForks() {
  try {
    const reply = await fetch(`/v1/database/${DATABASE}/forks`);
    if (!reply.ok) return;
    const names = (await reply.json()).forks.map(({ name }) => name);
    const nav = element("forks");
    if (names.join() === [...nav.children].map(button => button.dataset.fork).join()) return;
    fill(nav, names, name => {
      const button = node("button", { type: "button", textContent: name });
      button.dataset.fork = name;
      button.addEventListener("click", () => show(name));
      return button;
    });
    markForks();
  } catch {
    // The server is restarting: the connection reports that, and the next round asks again.
  }
}

function markForks() {
  for (const button of element("forks").children) {
    button.setAttribute("aria-pressed", String(button.dataset.fork === shown.fork));
  }
}

let counted = 0;
setInterval(() => {
  element("rate").textContent = number(updates - counted);
  counted = updates;
}, 1_000);
setInterval(refreshForks, FORKS_REFRESH_MS);
setInterval(draw, 250);
refreshForks();
show(new URLSearchParams(location.search).get("fork") ?? "main");
