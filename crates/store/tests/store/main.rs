//! Tests of the store through its public interface.

mod checkpoints;
mod concurrency;
mod crash;
mod crash_env;
mod damage;
mod diff;
mod faults;
mod forks;
mod fuzz;
mod history;
mod images;
mod kill;
mod memory;
mod model;
mod names;
mod s3;
mod simulation;
mod support;
mod transactions;
mod view;
