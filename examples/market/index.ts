/**
 * An auction house. Agents sell lots of tea, silk and amber and bid for the lots of
 * others; hot lots are fought over. Run it with
 *
 *     tine publish market examples/market
 *
 * and look at `rules.ts` for the arithmetic and `schema.ts` for what is conserved.
 */
import { Range, ScheduleAt, SenderError, t, type ReducerCtx } from "tine:server";
import market, { hammer } from "./schema";
import {
  AUCTION_MS_MAX,
  AUCTION_MS_MIN,
  AUCTIONS_OPEN_MAX,
  clearingPrice,
  floorPrice,
  GOODS,
  houseFee,
  LOT_UNITS_MAX,
  lowestBid,
  SALES_KEPT,
  SETTLE_MAX,
  START_COINS,
  START_UNITS,
} from "./rules";

export default market;

type Ctx = ReducerCtx<typeof market.schemaType>;
type Identity = Ctx["sender"];

export const init = market.init(ctx => {
  ctx.db.house.insert({ id: 0, owner: ctx.sender, coins: 0n, minted: 0n });
  ctx.db.policy.insert({ id: 0, name: "house rules", fee: 250, floor: 0, step: 3, second: false });
  GOODS.forEach(({ name, price }, id) => {
    ctx.db.good.insert({ id, name, minted: 0n, last: price, sales: 0n, units: 0n, coins: 0n });
  });
});

/** Enter the market under a name, once; a later call changes the name. */
export const join = market.reducer({ name: t.string() }, (ctx, { name }) => {
  if (name.length === 0 || name.length > 24) {
    throw new SenderError("a name has 1 to 24 characters");
  }
  const known = ctx.db.agent.id.find(ctx.sender);
  if (known) {
    ctx.db.agent.id.update({ ...known, name });
    return;
  }
  ctx.db.agent.insert({ id: ctx.sender, name, coins: START_COINS, bids: 0n, bought: 0n, sold: 0n });
  const house = ctx.db.house.id.find(0)!;
  ctx.db.house.id.update({ ...house, minted: house.minted + START_COINS });
  for (const good of ctx.db.good.iter()) {
    ctx.db.good.id.update({ ...good, minted: good.minted + BigInt(START_UNITS) });
    give(ctx, ctx.sender, good.id, START_UNITS);
  }
});

/** Put a lot under the hammer for `ms` milliseconds. */
export const sell = market.reducer(
  { ticket: t.u64(), good: t.u8(), units: t.u32(), reserve: t.u64(), ms: t.u32() },
  (ctx, { ticket, good: goodId, units, reserve, ms }) => {
    if (units === 0 || units > LOT_UNITS_MAX) {
      throw new SenderError(`a lot has 1 to ${LOT_UNITS_MAX} crates`);
    }
    if (ms < AUCTION_MS_MIN || ms > AUCTION_MS_MAX) {
      throw new SenderError(`an auction lasts ${AUCTION_MS_MIN} to ${AUCTION_MS_MAX} ms`);
    }
    if (ctx.db.auction.count() >= AUCTIONS_OPEN_MAX) {
      throw new SenderError("the floor is full");
    }
    const good = ctx.db.good.id.find(goodId);
    if (!good) throw new SenderError(`there is no good ${goodId}`);
    take(ctx, ctx.sender, goodId, units);

    const floor = floorPrice(good.last, units, ctx.db.policy.id.find(0)!.floor);
    const closesMicros = ctx.timestamp.microsSinceUnixEpoch + BigInt(ms) * 1000n;
    const due = ScheduleAt.time(closesMicros);
    const lot = ctx.db.auction.insert({
      id: 0n,
      seller: ctx.sender,
      good: goodId,
      units,
      reserve: reserve > floor ? reserve : floor,
      best: 0n,
      second: 0n,
      bidder: undefined,
      bids: 0,
      closes: due.value as Ctx["timestamp"],
    });
    ctx.db.hammer.insert({ id: 0n, at: due, auction: lot.id });
    ctx.db.ledger.insert({ id: 0n, agent: ctx.sender, ticket, auction: lot.id, coins: 0n });
  }
);

/** Bid for a lot. The coins leave the bidder at once; the bidder before gets theirs back. */
export const bid = market.reducer(
  { ticket: t.u64(), auction: t.u64(), coins: t.u64() },
  (ctx, { ticket, auction: id, coins }) => {
    const lot = ctx.db.auction.id.find(id);
    if (!lot || lot.closes.microsSinceUnixEpoch <= ctx.timestamp.microsSinceUnixEpoch) {
      throw new SenderError("the hammer has fallen");
    }
    if (lot.seller.isEqual(ctx.sender)) throw new SenderError("that lot is yours");
    if (lot.bidder?.isEqual(ctx.sender)) throw new SenderError("you hold the best bid");
    const lowest = lowestBid(lot.best, lot.reserve, ctx.db.policy.id.find(0)!.step);
    if (coins < lowest) throw new SenderError(`outbid: the next bid is ${lowest}`);
    const agent = ctx.db.agent.id.find(ctx.sender);
    if (!agent) throw new SenderError("join the market first");
    if (agent.coins < coins) throw new SenderError(`you have ${agent.coins} coins`);

    if (lot.bidder) pay(ctx, lot.bidder, lot.best);
    ctx.db.agent.id.update({ ...agent, coins: agent.coins - coins, bids: agent.bids + 1n });
    ctx.db.auction.id.update({
      ...lot,
      second: lot.best,
      best: coins,
      bidder: ctx.sender,
      bids: lot.bids + 1,
    });
    ctx.db.ledger.insert({ id: 0n, agent: ctx.sender, ticket, auction: id, coins });
  }
);

/** The hammer falls on one lot: a scheduled call, one per auction. */
export const strike = market.reducer(
  { onSchedule: hammer },
  { arg: hammer.rowType },
  (ctx, { arg }) => close(ctx, arg.auction)
);

/**
 * Closes lots that are overdue. Schedules are paused on a fork, so there the agents
 * strike the hammer themselves.
 */
export const settle = market.reducer(ctx => {
  const due = ctx.db.auction.closes.filter(
    new Range(undefined, { tag: "included", value: ctx.timestamp })
  );
  let settled = 0;
  for (const lot of due) {
    if (settled++ === SETTLE_MAX) break;
    close(ctx, lot.id);
  }
});

/** New rules for the house; only its owner may. */
export const adopt = market.reducer(
  { name: t.string(), fee: t.u32(), floor: t.u32(), step: t.u32(), second: t.bool() },
  (ctx, rules) => {
    if (!ctx.db.house.id.find(0)!.owner.isEqual(ctx.sender)) {
      throw new SenderError("only the owner of the house sets its rules");
    }
    if (rules.fee > 10_000) throw new SenderError("the fee is at most 10000 basis points");
    ctx.db.policy.id.update({ id: 0, ...rules });
  }
);

const Audit = t.object("Audit", {
  agents: t.u64(),
  auctions: t.u64(),
  held: t.u64(),
  escrow: t.u64(),
  fees: t.u64(),
  minted: t.u64(),
  balanced: t.bool(),
});

/** Counts every coin and every crate in one transaction. */
export const audit = market.procedure(Audit, ctx =>
  ctx.withTx(tx => {
    let held = 0n;
    let escrow = 0n;
    const crates = new Map<number, bigint>();
    const count = (good: number, units: number) =>
      crates.set(good, (crates.get(good) ?? 0n) + BigInt(units));
    for (const agent of tx.db.agent.iter()) held += agent.coins;
    for (const row of tx.db.holding.iter()) count(row.good, row.units);
    for (const lot of tx.db.auction.iter()) {
      escrow += lot.best;
      count(lot.good, lot.units);
    }
    const house = tx.db.house.id.find(0)!;
    let balanced = held + escrow + house.coins === house.minted;
    for (const good of tx.db.good.iter()) {
      balanced &&= (crates.get(good.id) ?? 0n) === good.minted;
    }
    return {
      agents: tx.db.agent.count(),
      auctions: tx.db.auction.count(),
      held,
      escrow,
      fees: house.coins,
      minted: house.minted,
      balanced,
    };
  })
);

/** Hands the lot to the winner and the price to the seller, or the lot back to the seller. */
function close(ctx: Ctx, id: bigint) {
  const lot = ctx.db.auction.id.find(id);
  if (!lot) return;
  ctx.db.auction.id.delete(id);
  if (!lot.bidder) {
    give(ctx, lot.seller, lot.good, lot.units);
    return;
  }
  const policy = ctx.db.policy.id.find(0)!;
  const price = clearingPrice(lot.best, lot.second, lot.reserve, policy.second);
  const fee = houseFee(price, policy.fee);
  const house = ctx.db.house.id.find(0)!;
  ctx.db.house.id.update({ ...house, coins: house.coins + fee });

  const seller = ctx.db.agent.id.find(lot.seller)!;
  ctx.db.agent.id.update({
    ...seller,
    coins: seller.coins + price - fee,
    sold: seller.sold + BigInt(lot.units),
  });
  const buyer = ctx.db.agent.id.find(lot.bidder)!;
  ctx.db.agent.id.update({
    ...buyer,
    coins: buyer.coins + lot.best - price,
    bought: buyer.bought + BigInt(lot.units),
  });
  give(ctx, lot.bidder, lot.good, lot.units);

  const good = ctx.db.good.id.find(lot.good)!;
  ctx.db.good.id.update({
    ...good,
    last: price / BigInt(lot.units),
    sales: good.sales + 1n,
    units: good.units + BigInt(lot.units),
    coins: good.coins + price,
  });
  const { id: sold } = ctx.db.sale.insert({
    id: 0n,
    good: lot.good,
    units: lot.units,
    price,
    fee,
    seller: lot.seller,
    buyer: lot.bidder,
    bids: lot.bids,
    at: ctx.timestamp,
  });
  if (sold > SALES_KEPT) ctx.db.sale.id.delete(sold - SALES_KEPT);
}

function pay(ctx: Ctx, to: Identity, coins: bigint) {
  const agent = ctx.db.agent.id.find(to)!;
  ctx.db.agent.id.update({ ...agent, coins: agent.coins + coins });
}

function give(ctx: Ctx, to: Identity, good: number, units: number) {
  for (const row of ctx.db.holding.ownerGood.filter([to, good])) {
    ctx.db.holding.id.update({ ...row, units: row.units + units });
    return;
  }
  ctx.db.holding.insert({ id: 0n, owner: to, good, units });
}

function take(ctx: Ctx, from: Identity, good: number, units: number) {
  for (const row of ctx.db.holding.ownerGood.filter([from, good])) {
    if (row.units < units) break;
    if (row.units === units) ctx.db.holding.id.delete(row.id);
    else ctx.db.holding.id.update({ ...row, units: row.units - units });
    return;
  }
  throw new SenderError(`you do not have ${units} crates of that`);
}
