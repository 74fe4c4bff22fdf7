//! Replies recorded from the server that this one stands in for, request by request.
//!
//! All that were recorded are here but three of a session that opened what another one, not recorded, had left behind.

use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tine_base::SystemEnv;
use tine_worldstate::wire::{Action, Encoder, decode, error_reply};
use tine_worldstate::{World, WorldOptions};

mod support;

use support::{bytes, encode, parse};

const VECTORS: &str = include_str!("data/vectors.json");

/// Vectors that read the tree which a refused insertion had damaged there.
const AFTER_EFFECTS: [u64; 2] = [101, 103];

/// Vectors whose recorded reply is a defect of that server, with what is right.
fn corrected(id: u64) -> Option<Value> {
    let error = |message: &str| json!({ "name": "WsdbErrorResponse", "body": { "message": message } });
    let already_present = |key: &str| {
        error(&format!(
            "Unable to insert values into tree NullifierTree leaf type NullifierLeafValue is not updateable and \
             0x{key:0>64} is already present"
        ))
    };
    Some(match id {
        // A refused insertion had left its keys behind.
        93 => already_present("3e8"),
        // So this one is not refused here, and the tree goes on from it.
        100 => json!({ "name": "WsdbAppendLeavesResponse", "body": {} }),
        102 => already_present("2b67"),
        // Missing bytes of a leaf were whatever was in memory.
        160 => error("a field element has 32 bytes, not 2"),
        // These never got a reply.
        166 => error("parse error"),
        169 | 170 => error("Expected an array of size 1 for a request"),
        _ => return None,
    })
}

/// The options among a session's arguments that change what it answers.
fn options(arguments: &Value, directory: &std::path::Path) -> WorldOptions {
    let mut options = WorldOptions::new(directory);
    let arguments: Vec<&str> =
        arguments.as_array().unwrap().iter().map(|argument| argument.as_str().unwrap()).collect();
    let numbers = |text: &str| -> Vec<u64> {
        let pairs = text.trim_matches(['{', '}']).split(',');
        pairs.map(|pair| pair.split_once(':').unwrap().1.parse().unwrap()).collect()
    };
    let word = |value: &Value| -> [u8; 32] { bytes(value.as_str().unwrap()).try_into().unwrap() };
    for pair in arguments[2..].chunks(2) {
        let [name, value] = pair else { panic!("an option has a value") };
        match *name {
            "--tree-heights" => {
                let heights: Vec<u32> = numbers(value).into_iter().map(|height| height as u32).collect();
                options.heights = heights.try_into().unwrap();
            }
            "--tree-prefill" => {
                (options.nullifier_prefill, options.public_data_prefill) = (numbers(value)[0], numbers(value)[1]);
            }
            "--prefilled-public-data" => {
                let pairs: Vec<[Value; 2]> = serde_json::from_str(value).unwrap();
                options.prefilled_public_data = pairs.iter().map(|[slot, value]| (word(slot), word(value))).collect();
            }
            "--prefilled-nullifiers" => {
                let keys: Vec<Value> = serde_json::from_str(value).unwrap();
                options.prefilled_nullifiers = keys.iter().map(word).collect();
            }
            "--genesis-timestamp" => options.genesis_timestamp = value.parse().unwrap(),
            "--initial-header-generator-point" => options.initial_header_generator_point = value.parse().unwrap(),
            _ => {}
        }
    }
    options
}

/// The reply of `world` to a payload, parsed.
fn ask(world: &World, payload: &[u8]) -> Value {
    let encoder = Encoder { map_bytes: [1 << 30; 5] };
    let reply = match decode(payload) {
        Err(error) => error_reply(&error.to_string()),
        Ok(request) => {
            let Action::Command(command) = request.action else { panic!("no vector ends the service") };
            let (answer, answered) = channel();
            let answer = Mutex::new(answer);
            let reply = Box::new(move |result| answer.lock().unwrap().send(result).unwrap());
            world.call(&world.session(), command, reply);
            encoder.reply(request.name, &answered.recv().unwrap())
        }
    };
    let mut rest = reply.as_slice();
    let parsed = parse(&mut rest);
    assert!(rest.is_empty(), "a reply is one value");
    parsed
}

#[test]
fn replies_are_those_recorded() {
    let file: Value = serde_json::from_str(VECTORS).unwrap();
    let mut checked = 0;
    for (session, setup) in file["sessions"].as_object().unwrap() {
        let directory = tempfile::tempdir().unwrap();
        let world = World::open(&options(&setup["args"], directory.path()), Arc::new(SystemEnv)).unwrap();
        for vector in file["vectors"].as_array().unwrap().iter().filter(|vector| vector["session"] == **session) {
            let id = vector["id"].as_u64().unwrap();
            let request = &vector["request"];
            let mut payload = Vec::new();
            match request.get("raw") {
                Some(raw) => payload = bytes(raw.as_str().unwrap()),
                None => encode(&json!([[request["name"], request["body"]]]), &mut payload),
            }
            let recorded = &vector["reply"];
            let expected = match (corrected(id), recorded.get("raw")) {
                (Some(right), _) => json!([right["name"], right["body"]]),
                (None, Some(raw)) => {
                    // Recorded as text, one character a byte.
                    let raw: Vec<u8> = raw.as_str().unwrap().chars().map(|byte| byte as u8).collect();
                    parse(&mut raw.as_slice())
                }
                (None, None) => json!([recorded["name"], recorded["body"]]),
            };
            let answer = ask(&world, &payload);
            if AFTER_EFFECTS.contains(&id) {
                continue;
            }
            assert_eq!(answer, expected, "vector {id}: {}", vector["note"]);
            checked += 1;
        }
        world.close().unwrap();
    }
    assert!(checked > 200, "{checked} vectors were checked");
}
