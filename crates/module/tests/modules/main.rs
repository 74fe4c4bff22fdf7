//! Real modules against real tables on a store in a temporary directory.

mod bundles;
mod definition;
mod determinism;
mod errors;
mod features;
mod harness;
mod limits;
mod procedures;
mod sdk;
mod tables;
mod values;

/// The same tests run once more with their instances in processes of their own, see `tests/isolated`.
const IS_ISOLATED: bool = false;
