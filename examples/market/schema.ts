/**
 * The tables of the market.
 *
 * Coins and crates are conserved. At every commit
 *
 *     sum(agent.coins) + sum(auction.best) + house.coins == house.minted
 *     for every good: sum(holding.units) + sum(auction.units) == good.minted
 *
 * A seller's crates and the best bidder's coins sit in the auction row (escrow) until
 * the hammer falls; nobody can spend either twice.
 */
import { schema, t, table } from "tine:server";

/** One row: the auction house itself. */
const house = table(
  { public: true },
  {
    id: t.u8().primaryKey(),
    /** Whoever published the module; only they may change the policy. */
    owner: t.identity(),
    /** Fees collected so far. */
    coins: t.u64(),
    /** Coins ever given to agents. */
    minted: t.u64(),
  }
);

/** One row: the rules of the house. A fork of the market can live under other rules. */
const policy = table(
  { public: true },
  {
    id: t.u8().primaryKey(),
    name: t.string(),
    /** The house's share of a sale, in basis points (1/10,000), paid by the seller. */
    fee: t.u32(),
    /** Lowest reserve a seller may set, in percent of the good's last price. 0: no floor. */
    floor: t.u32(),
    /** Lowest raise over the best bid, in percent. */
    step: t.u32(),
    /** The winner pays the second best bid instead of the best. */
    second: t.bool(),
  }
);

/** What is traded. `last` is the price of one crate at the last sale. */
const good = table(
  { public: true },
  {
    id: t.u8().primaryKey(),
    name: t.string().unique(),
    minted: t.u64(),
    last: t.u64(),
    sales: t.u64(),
    units: t.u64(),
    coins: t.u64(),
  }
);

/** A trader. Coins that are bid are not here but in the auction. */
const agent = table(
  { public: true },
  {
    id: t.identity().primaryKey(),
    name: t.string(),
    coins: t.u64(),
    bids: t.u64(),
    bought: t.u64(),
    sold: t.u64(),
  }
);

/** How many crates of a good an agent holds; no row means none. */
const holding = table(
  {
    public: true,
    indexes: [{ accessor: "ownerGood", algorithm: "btree", columns: ["owner", "good"] }],
  },
  {
    id: t.u64().primaryKey().autoInc(),
    owner: t.identity(),
    good: t.u8(),
    units: t.u32(),
  }
);

/** A lot under the hammer. The row goes away when the hammer falls. */
const auction = table(
  { public: true },
  {
    id: t.u64().primaryKey().autoInc(),
    seller: t.identity(),
    good: t.u8(),
    units: t.u32(),
    /** No bid below this is taken. */
    reserve: t.u64(),
    /** The best bid, held in escrow; 0 while there is none. */
    best: t.u64(),
    /** The best bid before that one. */
    second: t.u64(),
    bidder: t.option(t.identity()),
    bids: t.u32(),
    closes: t.timestamp().index("btree"),
  }
);

/** A finished sale; only the newest are kept. */
const sale = table(
  { public: true },
  {
    id: t.u64().primaryKey().autoInc(),
    good: t.u8(),
    units: t.u32(),
    price: t.u64(),
    fee: t.u64(),
    seller: t.identity(),
    buyer: t.identity(),
    bids: t.u32(),
    at: t.timestamp(),
  }
);

/**
 * One line per accepted `sell` and `bid`, with the caller's own ticket number: what the
 * market has acknowledged can be held against it later. Private: only the owner reads it.
 */
const ledger = table(
  {},
  {
    id: t.u64().primaryKey().autoInc(),
    agent: t.identity(),
    ticket: t.u64(),
    auction: t.u64(),
    coins: t.u64(),
  }
);

/** The hammer: one row per auction, due when it closes. */
export const hammer = table(
  {},
  {
    id: t.u64().primaryKey().autoInc(),
    at: t.scheduleAt(),
    auction: t.u64(),
  }
);

const market = schema({ house, policy, good, agent, holding, auction, sale, ledger, hammer });
export default market;
