//! Decoding what a server sends, for clients, tools and tests.

use std::sync::Arc;

use bytes::Bytes;

use crate::protocol::server::{
    INITIAL_CONNECTION, ONE_OFF_QUERY_RESULT, PROCEDURE_RESULT, REDUCER_RESULT, SUBSCRIBE_APPLIED, SUBSCRIPTION_ERROR,
    TRANSACTION_UPDATE, UNSUBSCRIBE_APPLIED,
};
use crate::protocol::slices::SliceReader;
use crate::protocol::{
    ProcedureStatus, ProtocolError, QueryRows, QuerySetUpdate, ReducerOutcome, RowList, ServerMessage, TableRows,
    TableUpdate, TableUpdateRows, TransactionUpdate,
};

/// Fewest bytes of a table's rows: an empty name, a hint of two bytes and its tag, no data.
const TABLE_ROWS_SIZE_MIN: usize = 11;
/// Fewest bytes of a query set's update: its id and a count.
const QUERY_SET_SIZE_MIN: usize = 8;
/// Fewest bytes of a table's update: an empty name and a count.
const TABLE_UPDATE_SIZE_MIN: usize = 8;
/// Fewest bytes of a part of it: its tag and an event list's hint and length.
const TABLE_PART_SIZE_MIN: usize = 8;

/// Reads the message at `position` of `buffer` and moves `position` behind it. Rows and other
/// payloads are slices of the buffer. Bytes behind the message are the next message's.
///
/// # Errors
/// Bytes that are no message; `position` then stays.
pub fn decode_server_message(buffer: &Bytes, position: &mut usize) -> Result<ServerMessage, ProtocolError> {
    let mut slices = SliceReader::at(buffer, *position);
    let tag = slices.reader.u8()?;
    let message = match tag {
        INITIAL_CONNECTION => ServerMessage::InitialConnection {
            identity: slices.reader.identity()?,
            connection_id: slices.reader.connection_id()?,
            token: text(&mut slices)?,
        },
        SUBSCRIBE_APPLIED => ServerMessage::SubscribeApplied {
            request_id: slices.reader.u32()?,
            query_set_id: slices.reader.u32()?,
            rows: query_rows(&mut slices)?,
        },
        UNSUBSCRIBE_APPLIED => ServerMessage::UnsubscribeApplied {
            request_id: slices.reader.u32()?,
            query_set_id: slices.reader.u32()?,
            rows: match slices.reader.option()? {
                true => Some(query_rows(&mut slices)?),
                false => None,
            },
        },
        SUBSCRIPTION_ERROR => ServerMessage::SubscriptionError {
            request_id: match slices.reader.option()? {
                true => Some(slices.reader.u32()?),
                false => None,
            },
            query_set_id: slices.reader.u32()?,
            error: text(&mut slices)?,
        },
        TRANSACTION_UPDATE => ServerMessage::TransactionUpdate(transaction_update(&mut slices)?),
        ONE_OFF_QUERY_RESULT => ServerMessage::OneOffQueryResult {
            request_id: slices.reader.u32()?,
            result: match slices.reader.tag(2)? {
                0 => Ok(query_rows(&mut slices)?),
                _ => Err(text(&mut slices)?),
            },
        },
        REDUCER_RESULT => ServerMessage::ReducerResult {
            request_id: slices.reader.u32()?,
            timestamp: slices.reader.timestamp()?,
            outcome: reducer_outcome(&mut slices)?,
        },
        PROCEDURE_RESULT => ServerMessage::ProcedureResult {
            status: match slices.reader.tag(2)? {
                0 => ProcedureStatus::Returned(slices.bytes()?),
                _ => ProcedureStatus::InternalError(text(&mut slices)?),
            },
            timestamp: slices.reader.timestamp()?,
            duration: slices.reader.time_duration()?,
            request_id: slices.reader.u32()?,
        },
        tag => return Err(ProtocolError::UnknownMessage { position: *position, tag }),
    };
    *position = slices.reader.position();
    Ok(message)
}

fn text(slices: &mut SliceReader<'_>) -> Result<String, ProtocolError> {
    Ok(slices.reader.str()?.to_owned())
}

fn table_name(slices: &mut SliceReader<'_>) -> Result<Arc<str>, ProtocolError> {
    Ok(slices.reader.str()?.into())
}

/// An array of things, none of which is allocated for before it is seen to be there.
fn array<T>(
    slices: &mut SliceReader<'_>,
    size_min: usize,
    mut read: impl FnMut(&mut SliceReader<'_>) -> Result<T, ProtocolError>,
) -> Result<Vec<T>, ProtocolError> {
    let count = slices.reader.array_len(size_min)?;
    let mut items = Vec::new();
    for _ in 0..count {
        items.push(read(slices)?);
    }
    Ok(items)
}

fn query_rows(slices: &mut SliceReader<'_>) -> Result<QueryRows, ProtocolError> {
    let tables = array(slices, TABLE_ROWS_SIZE_MIN, |slices| {
        Ok(TableRows { table: table_name(slices)?, rows: RowList::decode(slices)? })
    })?;
    Ok(QueryRows { tables })
}

fn transaction_update(slices: &mut SliceReader<'_>) -> Result<TransactionUpdate, ProtocolError> {
    let query_sets = array(slices, QUERY_SET_SIZE_MIN, |slices| {
        let query_set_id = slices.reader.u32()?;
        let tables = array(slices, TABLE_UPDATE_SIZE_MIN, table_updates)?;
        Ok(QuerySetUpdate { query_set_id, tables: tables.into_iter().flatten().collect() })
    })?;
    Ok(TransactionUpdate { query_sets })
}

/// The wire allows several parts per table; each becomes an update of its own, which means the same.
fn table_updates(slices: &mut SliceReader<'_>) -> Result<Vec<Arc<TableUpdate>>, ProtocolError> {
    let table = table_name(slices)?;
    array(slices, TABLE_PART_SIZE_MIN, |slices| {
        let rows = match slices.reader.tag(2)? {
            0 => TableUpdateRows::Persistent { inserts: RowList::decode(slices)?, deletes: RowList::decode(slices)? },
            _ => TableUpdateRows::Event { events: RowList::decode(slices)? },
        };
        Ok(Arc::new(TableUpdate::new(table.clone(), rows)))
    })
}

fn reducer_outcome(slices: &mut SliceReader<'_>) -> Result<ReducerOutcome, ProtocolError> {
    Ok(match slices.reader.tag(4)? {
        0 => ReducerOutcome::Ok { return_value: slices.bytes()?, update: transaction_update(slices)? },
        1 => ReducerOutcome::OkEmpty,
        2 => ReducerOutcome::Err(slices.bytes()?),
        _ => ReducerOutcome::InternalError(text(slices)?),
    })
}
