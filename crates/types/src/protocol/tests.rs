use std::sync::Arc;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::bsatn::BsatnWrite;
use crate::{ConnectionId, Identity, TimeDuration, Timestamp};

fn row_list(rows: &[Vec<u8>]) -> RowList {
    let mut builder = RowListBuilder::new();
    rows.iter().for_each(|row| builder.push(row));
    builder.finish(None)
}

fn encoded(message: &ServerMessage) -> Bytes {
    let mut out = Vec::new();
    encode_server_message(message, &mut out);
    out.into()
}

fn encoded_client(message: &ClientMessage) -> Bytes {
    let mut out = Vec::new();
    encode_client_message(message, &mut out);
    out.into()
}

fn client_messages() -> Vec<ClientMessage> {
    vec![
        ClientMessage::Subscribe { request_id: 1, query_set_id: 2, queries: vec!["a".into(), "é".into()] },
        ClientMessage::Subscribe { request_id: 1, query_set_id: 2, queries: vec![] },
        ClientMessage::Unsubscribe { request_id: 3, query_set_id: 4, send_dropped_rows: true },
        ClientMessage::Unsubscribe { request_id: 3, query_set_id: 4, send_dropped_rows: false },
        ClientMessage::OneOffQuery { request_id: 5, query: "SELECT".into() },
        ClientMessage::CallReducer { request_id: 6, reducer: "add".into(), args: vec![1, 2].into() },
        ClientMessage::CallProcedure { request_id: u32::MAX, procedure: "run".into(), args: Bytes::new() },
    ]
}

fn update(rows: TableUpdateRows) -> TransactionUpdate {
    let table = Arc::new(TableUpdate::new("player".into(), rows));
    TransactionUpdate { query_sets: vec![QuerySetUpdate { query_set_id: 9, tables: vec![table.clone(), table] }] }
}

fn server_messages() -> Vec<ServerMessage> {
    let rows = row_list(&[vec![1, 2], vec![3]]);
    let query_rows = QueryRows { tables: vec![TableRows { table: "player".into(), rows: rows.clone() }] };
    let persistent = update(TableUpdateRows::Persistent { inserts: rows.clone(), deletes: RowList::empty() });
    let event = update(TableUpdateRows::Event { events: rows });
    let result =
        |outcome| ServerMessage::ReducerResult { request_id: 1, timestamp: Timestamp::from_micros(-2), outcome };
    let procedure = |status| ServerMessage::ProcedureResult {
        status,
        timestamp: Timestamp::from_micros(1),
        duration: TimeDuration::from_micros(2),
        request_id: 3,
    };
    let unsubscribed = |rows| ServerMessage::UnsubscribeApplied { request_id: 1, query_set_id: 2, rows };
    let failed = |request_id| ServerMessage::SubscriptionError { request_id, query_set_id: 1, error: "no".into() };
    vec![
        ServerMessage::InitialConnection {
            identity: Identity::from_claims("a", "b"),
            connection_id: ConnectionId::new(7),
            token: "token".into(),
        },
        ServerMessage::SubscribeApplied { request_id: 1, query_set_id: 2, rows: query_rows.clone() },
        unsubscribed(Some(query_rows.clone())),
        unsubscribed(None),
        failed(Some(4)),
        failed(None),
        ServerMessage::TransactionUpdate(persistent.clone()),
        ServerMessage::TransactionUpdate(TransactionUpdate::default()),
        ServerMessage::OneOffQueryResult { request_id: 1, result: Ok(query_rows) },
        ServerMessage::OneOffQueryResult { request_id: 1, result: Err("no".into()) },
        result(ReducerOutcome::Ok { return_value: vec![1].into(), update: persistent }),
        result(ReducerOutcome::Ok { return_value: Bytes::new(), update: event }),
        result(ReducerOutcome::OkEmpty),
        result(ReducerOutcome::error_text("no")),
        result(ReducerOutcome::InternalError("broken".into())),
        procedure(ProcedureStatus::Returned(vec![1, 2, 3].into())),
        procedure(ProcedureStatus::InternalError("broken".into())),
    ]
}

#[test]
fn client_messages_round_trip_end_to_end() {
    let messages = client_messages();
    let mut out = Vec::new();
    messages.iter().for_each(|message| encode_client_message(message, &mut out));
    let buffer = Bytes::from(out);
    let mut position = 0;
    for message in &messages {
        assert_eq!(decode_client_message(&buffer, &mut position).as_ref(), Ok(message));
    }
    assert_eq!(position, buffer.len());
    let error = decode_client_message(&buffer, &mut position).unwrap_err();
    assert_eq!((error.code(), position), ("TN0150", buffer.len()));
}

#[test]
fn server_messages_round_trip_end_to_end() {
    let messages = server_messages();
    let mut out = Vec::new();
    messages.iter().for_each(|message| encode_server_message(message, &mut out));
    let buffer = Bytes::from(out);
    let mut position = 0;
    for message in &messages {
        assert_eq!(decode_server_message(&buffer, &mut position).as_ref(), Ok(message));
    }
    assert_eq!(position, buffer.len());
}

#[test]
fn known_client_bytes() {
    let call = ClientMessage::CallReducer { request_id: 0x0102, reducer: "go".into(), args: vec![7].into() };
    assert_eq!(encoded_client(&call)[..], [3, 2, 1, 0, 0, 0, 2, 0, 0, 0, b'g', b'o', 1, 0, 0, 0, 7]);
    let subscribe = ClientMessage::Subscribe { request_id: 1, query_set_id: 2, queries: vec!["q".into()] };
    assert_eq!(encoded_client(&subscribe)[..], [0, 1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, b'q']);
    let unsubscribe = ClientMessage::Unsubscribe { request_id: 1, query_set_id: 2, send_dropped_rows: true };
    assert_eq!(encoded_client(&unsubscribe)[..], [1, 1, 0, 0, 0, 2, 0, 0, 0, 1]);
}

#[test]
fn known_server_bytes() {
    let result = |outcome| {
        encoded(&ServerMessage::ReducerResult { request_id: 3, timestamp: Timestamp::from_micros(256), outcome })
    };
    let head = [6, 3, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    // The smallest success: no return value, no query sets, 22 bytes.
    let ok = result(ReducerOutcome::ok_without_rows());
    assert_eq!(ok.len(), 22);
    assert_eq!(ok[..], [&head[..], &[0; 9]].concat());
    assert_eq!(result(ReducerOutcome::OkEmpty)[..], [&head[..], &[1]].concat());
    assert_eq!(
        result(ReducerOutcome::error_text("no"))[..],
        [&head[..], &[2, 6, 0, 0, 0, 2, 0, 0, 0, b'n', b'o']].concat()
    );
    let events = update(TableUpdateRows::Event { events: RowList::single(vec![5, 6].into()) });
    let table = [&[6, 0, 0, 0][..], b"player", &[1, 0, 0, 0, 1, 0, 2, 0, 2, 0, 0, 0, 5, 6]].concat();
    let expected = [&[4, 1, 0, 0, 0, 9, 0, 0, 0, 2, 0, 0, 0][..], &table, &table].concat();
    assert_eq!(encoded(&ServerMessage::TransactionUpdate(events))[..], expected);
    let procedure = ServerMessage::ProcedureResult {
        status: ProcedureStatus::Returned(Bytes::new()),
        timestamp: Timestamp::from_micros(1),
        duration: TimeDuration::from_micros(2),
        request_id: 3,
    };
    let expected = [7, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0];
    assert_eq!(encoded(&procedure)[..], expected);
    let failed = ServerMessage::SubscriptionError { request_id: None, query_set_id: 1, error: String::new() };
    assert_eq!(encoded(&failed)[..], [3, 1, 1, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn shapes_of_row_lists() {
    let offsets = |offsets: &[u64]| RowSizeHint::RowOffsets(offsets.into());
    let big = usize::from(u16::MAX) + 1;
    let cases: Vec<(Vec<Vec<u8>>, RowSizeHint)> = vec![
        (vec![], offsets(&[])),
        (vec![vec![]], offsets(&[0])),
        (vec![vec![], vec![]], offsets(&[0, 0])),
        (vec![vec![1; 4]], RowSizeHint::FixedSize(4)),
        (vec![vec![1; 4], vec![2; 4]], RowSizeHint::FixedSize(4)),
        (vec![vec![1; 4], vec![2; 4], vec![3; 2], vec![4; 4]], offsets(&[0, 4, 8, 10])),
        (vec![vec![], vec![1]], offsets(&[0, 0])),
        (vec![vec![1], vec![]], offsets(&[0, 1])),
        (vec![vec![0; big - 1]; 2], RowSizeHint::FixedSize(u16::MAX)),
        (vec![vec![0; big]; 2], offsets(&[0, big as u64])),
    ];
    for (rows, hint) in cases {
        let list = row_list(&rows);
        assert_eq!(list.hint, hint);
        assert_eq!(list.len(), rows.len());
        assert!(list.rows().eq(rows.iter().map(Vec::as_slice)));
        if let [row] = &rows[..] {
            assert_eq!(RowList::single(row.clone().into()), list);
        }
        let mut out = Vec::new();
        list.encode(&mut out);
        assert_eq!(out.len(), list.encoded_len());
    }
    let mut empty = Vec::new();
    RowList::empty().encode(&mut empty);
    assert_eq!(empty, [1, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
#[should_panic(expected = "rows have their type's size")]
fn rows_of_the_wrong_size_are_a_bug() {
    let mut builder = RowListBuilder::new();
    builder.push(&[1, 2]);
    builder.finish(Some(4));
}

#[test]
fn payloads_are_slices_of_the_buffer() {
    let args = Bytes::from(vec![9; 100]);
    let call = ClientMessage::CallReducer { request_id: 1, reducer: "r".into(), args };
    let buffer = encoded_client(&call);
    let ClientMessage::CallReducer { args, .. } = decode_client_message(&buffer, &mut 0).unwrap() else {
        panic!("another message came back");
    };
    assert!(buffer.as_ptr_range().contains(&args.as_ptr()));
}

#[test]
fn a_shared_update_is_encoded_once() {
    let rows = TableUpdateRows::Event { events: row_list(&[vec![1], vec![2, 3]]) };
    let table = Arc::new(TableUpdate::new("t".into(), rows));
    let message = |query_set_id| {
        let query_sets = vec![QuerySetUpdate { query_set_id, tables: vec![table.clone()] }];
        ServerMessage::TransactionUpdate(TransactionUpdate { query_sets })
    };
    let first = encoded(&message(1));
    let cached = table.encoded().as_ptr();
    let second = encoded(&message(1));
    assert_eq!(first, second);
    assert_eq!(table.encoded().as_ptr(), cached);
    assert!(first.ends_with(table.encoded()));
    assert_eq!(table.encoded().len(), table.encoded_len());
    let lone = TableUpdate::new(table.table.clone(), table.rows.clone());
    let query_sets = vec![QuerySetUpdate { query_set_id: 1, tables: vec![Arc::new(lone)] }];
    assert_eq!(encoded(&ServerMessage::TransactionUpdate(TransactionUpdate { query_sets })), first);
}

#[test]
fn several_parts_of_a_table_become_several_updates() {
    let part = [1, 0, 1, 0, 1, 0, 0, 0, 5];
    let bytes = [&[4, 1, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, b't', 2, 0, 0, 0][..], &part, &part].concat();
    let ServerMessage::TransactionUpdate(update) = decode_server_message(&bytes.into(), &mut 0).unwrap() else {
        panic!("another message came back");
    };
    let tables = &update.query_sets[0].tables;
    let events = TableUpdateRows::Event { events: RowList::single(vec![5].into()) };
    assert_eq!(tables.len(), 2);
    assert!(tables.iter().all(|table| &*table.table == "t" && table.rows == events));
}

#[test]
fn hostile_client_messages() {
    let mut many = vec![0, 1, 0, 0, 0, 2, 0, 0, 0];
    many.put_len(SUBSCRIBE_QUERIES_MAX + 1);
    many.resize(many.len() + 4 * (SUBSCRIBE_QUERIES_MAX + 1), 0);
    let cases: Vec<(&[u8], &str)> = vec![
        (&[], "TN0150"),
        (&[5], "TN0151"),
        (&[255, 0, 0], "TN0151"),
        (&[3, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0], "TN0152"),
        (&[4, 0, 0, 0, 0, 255, 0, 0, 0, 0, 0, 0, 0, 0], "TN0152"),
        (&[3, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], "TN0150"),
        (&[2, 0, 0, 0, 0, 1, 0, 0, 0, 0xff], "TN0150"),
        (&[1, 0, 0, 0, 0, 0, 0, 0, 0, 2], "TN0150"),
        (&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], "TN0150"),
        (&many, "TN0153"),
    ];
    for (bytes, code) in cases {
        let mut position = 0;
        let error = decode_client_message(&Bytes::copy_from_slice(bytes), &mut position).unwrap_err();
        assert_eq!((error.code(), position), (code, 0), "{:?}", &bytes[..bytes.len().min(20)]);
    }
}

#[test]
fn hostile_row_lists() {
    let lists: [&[u8]; 6] = [
        // Rows of size 0; data that is no multiple; offsets that lie.
        &[0, 0, 0, 0, 0, 0, 0],
        &[0, 2, 0, 3, 0, 0, 0, 1, 2, 3],
        &[1, 0, 0, 0, 0, 1, 0, 0, 0, 1],
        &[1, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1],
        &[1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1],
        &[1, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1, 1],
    ];
    for list in lists {
        let head = [5, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
        // The second table keeps the count's check from being the one that fails.
        let bytes = [&head[..], list, &[0; 8]].concat();
        let error = decode_server_message(&bytes.into(), &mut 0).unwrap_err();
        assert_eq!(error.code(), "TN0154", "{list:?}");
    }
}

proptest! {
    #[test]
    fn row_lists_round_trip(rows in vec(vec(any::<u8>(), 0..4), 0..10), same in vec(any::<[u8; 3]>(), 0..10)) {
        let same: Vec<_> = same.into_iter().map(Vec::from).collect();
        for rows in [rows, same] {
            let list = row_list(&rows);
            prop_assert!(list.rows().eq(rows.iter().map(Vec::as_slice)));
            let query_rows = QueryRows { tables: vec![TableRows { table: "t".into(), rows: list }] };
            let message = ServerMessage::SubscribeApplied { request_id: 0, query_set_id: 0, rows: query_rows };
            prop_assert_eq!(decode_server_message(&encoded(&message), &mut 0), Ok(message));
        }
    }

    #[test]
    fn damaged_messages_never_panic(which: proptest::sample::Index, at: proptest::sample::Index, byte: u8) {
        let mut bytes = encoded(which.get(&server_messages())).to_vec();
        let at_byte = at.index(bytes.len());
        bytes[at_byte] = byte;
        if let Ok(message) = decode_server_message(&bytes.into(), &mut 0) {
            prop_assert_eq!(decode_server_message(&encoded(&message), &mut 0), Ok(message));
        }
        let mut bytes = encoded_client(which.get(&client_messages())).to_vec();
        let at_byte = at.index(bytes.len());
        bytes[at_byte] = byte;
        if let Ok(message) = decode_client_message(&bytes.into(), &mut 0) {
            prop_assert_eq!(decode_client_message(&encoded_client(&message), &mut 0), Ok(message));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(tag in 0u8..8, bytes: Vec<u8>) {
        let bytes = Bytes::from([&[tag], &bytes[..]].concat());
        let _ = decode_client_message(&bytes, &mut 0);
        let _ = decode_server_message(&bytes, &mut 0);
        let _ = decode_client_message(&bytes, &mut usize::MAX.clone());
    }
}
