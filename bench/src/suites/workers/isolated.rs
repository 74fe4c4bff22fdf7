//! The rate of inserting calls of a module in a process of its own, over that of the same module in the server's process.

use std::time::Duration;

use anyhow::ensure;

use crate::{
    load::{Caller, Work},
    server::Server,
};

/// Calls before a round counts: instances are loaded, buffers have their size.
const WARM_UP: Duration = Duration::from_millis(300);

/// One round of both sides on one server, each with a database of its own. The order changes from round to round.
pub async fn ratio(server: &Server, number: u32, length: Duration) -> anyhow::Result<f64> {
    let mut rates = [0.0; 2];
    let mut sides = [(0, "in-process"), (1, "process")];
    if number % 2 == 1 {
        sides.reverse();
    }
    for (side, isolation) in sides {
        let database = format!("{isolation}-{number}");
        server.publish_isolated(&database, isolation)?;
        let mut caller = Caller::connect(server, &database, false, 0).await?;
        rates[side] = caller.throughput(Work::Insert, WARM_UP, length, server).await?.calls_per_s;
        let expected = caller.rows_inserted();
        caller.close().await?;
        let rows = server.row_count(&database)?;
        ensure!(rows == expected, "{expected} inserts were answered, but the table has {rows} rows");
        server.http().delete(&database, true)?;
    }
    Ok(rates[1] / rates[0])
}
