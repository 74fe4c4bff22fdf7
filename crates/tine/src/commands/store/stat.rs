//! `tine store stat`

use serde_json::{Value, json};
use tine_store::{ForkInfo, PAGE_BYTES, StoreView};
use tine_types::Timestamp;

use super::{Place, view};
use crate::{
    failure::Failure,
    output::{Output, Table, printable},
};

/// Prints what the stores consist of.
///
/// # Errors
/// A store that cannot be read.
pub fn run(places: &[Place], output: &Output) -> Result<(), Failure> {
    let mut stores = Vec::new();
    for place in places {
        let view = view(&place.directory)?;
        if output.is_json() {
            stores.push(as_json(place, &view));
        } else {
            output.lines(summary(place, &view))?;
            output.table(&forks(&view))?;
            if !view.named.is_empty() {
                output.table(&named(&view))?;
            }
            output.line("")?;
        }
    }
    if output.is_json() { output.json_list("stores", stores) } else { Ok(()) }
}

fn log_bytes(view: &StoreView) -> u64 {
    view.log.iter().map(|file| file.bytes).sum()
}

fn rows(view: &StoreView, fork: &ForkInfo) -> u64 {
    view.keyspaces(fork.id).iter().map(|(_, rows)| rows).sum()
}

fn summary(place: &Place, view: &StoreView) -> [String; 3] {
    let (segments, bytes) = (view.log.len(), log_bytes(view));
    let images = view.images.map_or_else(
        || "images: none".to_owned(),
        |images| {
            format!(
                "images: manifest {} of {}: {} versions, {} packs, {} bytes",
                images.manifest,
                Timestamp::from_micros(images.created_at_micros),
                images.versions,
                images.packs,
                images.pages * PAGE_BYTES as u64
            )
        },
    );
    [
        place.name.clone(),
        format!("log:    {segments} segments, {bytes} bytes, records {} to {}", view.first_record, view.last_record),
        images,
    ]
}

fn forks(view: &StoreView) -> Table {
    let mut table = Table::new(["fork", "name", "head", "made from", "keyspaces", "rows"]);
    for fork in view.forks() {
        table.row([
            fork.id.to_string(),
            printable(&fork.name),
            fork.head.get().to_string(),
            fork.parent.map_or_else(|| "-".to_owned(), |parent| parent.to_string()),
            view.keyspaces(fork.id).len().to_string(),
            rows(view, fork).to_string(),
        ]);
    }
    table
}

fn named(view: &StoreView) -> Table {
    let mut table = Table::new(["named version", "of", "committed at"]);
    for named in &view.named {
        let time = Timestamp::from_micros(named.timestamp_micros).to_string();
        table.row([printable(&named.name), named.version.to_string(), time]);
    }
    table
}

fn as_json(place: &Place, view: &StoreView) -> Value {
    let segment = |file: &tine_store::LogFile| json!({ "file": file.path, "bytes": file.bytes });
    let fork = |fork: &ForkInfo| {
        let keyspaces = view.keyspaces(fork.id).into_iter();
        json!({
            "id": fork.id.get(),
            "name": fork.name,
            "head": fork.head.get(),
            "parent": fork.parent.map(|parent| json!({ "fork": parent.fork.get(), "lsn": parent.lsn.get() })),
            "created_at_micros": fork.created_at_micros,
            "expires_at_micros": fork.expires_at_micros,
            "rows": rows(view, fork),
            "keyspaces": keyspaces.map(|(id, rows)| json!({ "id": id.get(), "rows": rows })).collect::<Vec<_>>(),
        })
    };
    json!({
        "store": place.name,
        "log": {
            "segments": view.log.iter().map(segment).collect::<Vec<_>>(),
            "bytes": log_bytes(view),
            "first_record": view.first_record,
            "last_record": view.last_record,
        },
        "images": view.images.map(|images| json!({
            "manifest": images.manifest,
            "created_at_micros": images.created_at_micros,
            "versions": images.versions,
            "packs": images.packs,
            "pages": images.pages,
            "bytes": images.pages * PAGE_BYTES as u64,
        })),
        "forks": view.forks().map(fork).collect::<Vec<_>>(),
        "named": view.named.iter().map(|named| json!({
            "name": named.name,
            "fork": named.version.fork.get(),
            "lsn": named.version.lsn.get(),
            "timestamp_micros": named.timestamp_micros,
        })).collect::<Vec<_>>(),
    })
}
