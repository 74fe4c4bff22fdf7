/** The arithmetic of the house: whole coins only, so that nothing is lost to rounding. */

/** Goods of the market: name, and the price of a crate before anything was sold. */
export const GOODS: readonly { name: string; price: bigint }[] = [
  { name: "tea", price: 40n },
  { name: "silk", price: 120n },
  { name: "amber", price: 300n },
];

/** Coins and crates of each good that a new agent starts with. */
export const START_COINS = 10_000n;
export const START_UNITS = 20;

/** Open auctions at once: beyond it `sell` is refused, so that the floor stays readable. */
export const AUCTIONS_OPEN_MAX = 48n;
/** Crates in one lot. */
export const LOT_UNITS_MAX = 10;
/** How long an auction may stay open. */
export const AUCTION_MS_MIN = 50;
export const AUCTION_MS_MAX = 60_000;
/** Finished sales kept for readers. */
export const SALES_KEPT = 120n;
/** Auctions settled by one call of `settle`. */
export const SETTLE_MAX = 16;

const PERCENT = 100n;
const BASIS_POINTS = 10_000n;

/** The lowest bid that beats `best`: at least one coin more. */
export function lowestBid(best: bigint, reserve: bigint, stepPercent: number): bigint {
  if (best === 0n) return reserve > 1n ? reserve : 1n;
  const raise = (best * BigInt(stepPercent)) / PERCENT;
  return best + (raise > 1n ? raise : 1n);
}

/** The lowest reserve the house allows for a lot. */
export function floorPrice(lastPrice: bigint, units: number, floorPercent: number): bigint {
  return (lastPrice * BigInt(units) * BigInt(floorPercent)) / PERCENT;
}

/** What the winner pays: the best bid, or under second-price rules the one before it. */
export function clearingPrice(
  best: bigint,
  second: bigint,
  reserve: bigint,
  secondPrice: boolean
): bigint {
  if (!secondPrice) return best;
  const price = second > reserve ? second : reserve;
  return price < best ? price : best;
}

/** The house's share of a price. Rounded down: the seller gets all that is left. */
export function houseFee(price: bigint, feeBasisPoints: number): bigint {
  return (price * BigInt(feeBasisPoints)) / BASIS_POINTS;
}
