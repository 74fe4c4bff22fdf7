//! What is a schema and what is not, hashes, and differences.

use proptest::prelude::*;
use tine_idl::{Language, Problem, Schema, Type, diff, generate};

const ECHO: &str = include_str!("../fixtures/echo.jsonc");

fn schema(commands: &str) -> Schema {
    parse(commands).unwrap_or_else(|error| panic!("{error}\n{commands}"))
}

/// A schema of service `S` from its commands, with an alias and a type to refer to.
fn parse(commands: &str) -> Result<Schema, tine_idl::SchemaError> {
    Schema::parse(&format!(
        r#"{{"service": "S", "aliases": {{"H": "bin32", "N": "u32"}}, "types": {{"P": {{"x": "u8"}}}},
            "error": {{"message": "string"}}, "commands": {{{commands}}}}}"#
    ))
}

#[test]
fn the_echo_schema() {
    let schema = Schema::parse(ECHO).expect("it is a schema");
    assert_eq!(schema.service, "Echo");
    assert!(schema.docs[0].starts_with("A service that answers"));
    let names: Vec<&str> = schema.types.iter().map(|structure| structure.name.as_str()).collect();
    assert_eq!(names, ["Point", "Shape"], "what is contained comes first");
    assert_eq!(schema.types[0].fields[0].docs, ["To the right."]);
    let count = schema.commands.iter().find(|command| command.name == "Count").expect("it is there");
    assert!(count.is_stream);
    assert_eq!(count.docs.len(), 1);
    let same = schema.commands.iter().find(|command| command.name == "Same").expect("it is there");
    assert_eq!(same.response.name(), "EchoSameResponse");
    assert_eq!(schema.response_structure(same).name, "EchoBytesResponse");
}

#[test]
fn suffixes_nest_from_the_left() {
    let schema = schema(r#""C": {"request": {"a": "H?[2][]?"}, "response": {}}"#);
    let ty = &schema.commands[0].request.fields[0].ty;
    let expected = Type::Optional(Box::new(Type::List(Box::new(Type::FixedList(
        Box::new(Type::Optional(Box::new(Type::Alias(0)))),
        2,
    )))));
    assert_eq!(*ty, expected);
    assert_eq!(schema.type_text(ty), "H?[2][]?");
}

#[test]
fn many_fields_are_fine() {
    let fields: Vec<String> = (0..300).map(|index| format!(r#""field{index}": "u64""#)).collect();
    let schema = schema(&format!(r#""Wide": {{"request": {{{}}}, "response": {{}}}}"#, fields.join(",")));
    assert_eq!(schema.commands[0].request.fields.len(), 300);
}

#[test]
fn broken_commands_are_refused_with_code_and_place() {
    let with_field = |field: &str| format!(r#""C": {{"request": {{{field}}}, "response": {{}}}}"#);
    let cases = [
        (with_field(r#""a": "u128""#), "TN1012", "there is no type `u128`"),
        (with_field(r#""a": "P??""#), "TN1011", "optional once more"),
        (with_field(r#""a": "P[0]""#), "TN1011", "from 1 to 65536"),
        (with_field(r#""a": "P[07]""#), "TN1011", "from 1 to 65536"),
        (with_field(r#""a": "P[99999999]""#), "TN1011", "from 1 to 65536"),
        (with_field(r#""a": "P[""#), "TN1011", "suffixes are"),
        (with_field(r#""a": "[]""#), "TN1011", "names nothing"),
        (with_field(r#""a": "P[][][][][][][][][]""#), "TN1011", "too many suffixes"),
        (with_field(r#""a": 7"#), "TN1007", "a field's type must be a string, not a number"),
        (with_field(r#""a": {}"#), "TN1007", "not an object"),
        (with_field(r#""match": "u8""#), "TN1009", "reserved word of Rust"),
        (with_field(r#""Template": "u8""#), "TN1009", "becomes `template`"),
        (with_field(r#""treeId": "u8", "tree_id": "u8""#), "TN1010", "both become `tree_id`"),
        (with_field(r#""a": "u8", "a": "u8""#), "TN1002", "`a` is there twice"),
        (with_field(r#""7a": "u8""#), "TN1008", "does not start with a letter"),
        (with_field(r#""a-b": "u8""#), "TN1008", "characters other than"),
        (r#""C": {"request": {}}"#.to_owned(), "TN1006", "`response` is missing"),
        (r#""C": {"request": {}, "response": {}, "streaming": true}"#.to_owned(), "TN1005", "means nothing"),
        (r#""C": {"request": {}, "response": {}, "stream": 1}"#.to_owned(), "TN1007", "must be a boolean"),
        (r#""C": {"request": {}, "response": "DResponse"}"#.to_owned(), "TN1015", "no response of another"),
        (r#""C": {"request": {}, "response": "CResponse"}"#.to_owned(), "TN1015", "no response of another"),
        (r#""C": {"request": {}, "response": []}"#.to_owned(), "TN1007", "not an array"),
        (r#""C": {"request": {}, "response": {}}, "c": {"request": {}, "response": {}}"#.to_owned(), "TN1010", "both"),
        (r#""Error": {"request": {}, "response": {}}"#.to_owned(), "TN1010", "SError"),
    ];
    for (commands, code, message) in cases {
        let error = parse(&commands).expect_err(&commands);
        assert_eq!(error.code(), code, "{error}\n{commands}");
        assert!(error.to_string().contains(message), "{error}\n{commands}");
        // The commands are on the second line.
        assert_eq!(error.position.line, 2, "{error}\n{commands}");
    }
}

#[test]
fn broken_services_are_refused() {
    let cases = [
        ("[]", "TN1007"),
        ("{}", "TN1006"),
        (r#"{"service": ""}"#, "TN1008"),
        (r#"{"service": "A b"}"#, "TN1008"),
        (r#"{"service": "A", "commands": {}}"#, "TN1006"),
        (r#"{"service": "A", "error": {"message": "u8"}, "commands": {}}"#, "TN1016"),
        (r#"{"service": "A", "error": {"message": "string", "x": "u8"}, "commands": {}}"#, "TN1016"),
        (r#"{"service": "A", "error": {"message": "string"}, "commands": {}, "extra": 1}"#, "TN1005"),
        (r#"{"service": "A", "aliases": {"X": "P"}, "error": {"message": "string"}, "commands": {}}"#, "TN1013"),
        (r#"{"service": "A", "types": {"X": {"a": "X[]"}}, "error": {"message": "string"}, "commands": {}}"#, "TN1014"),
        (
            r#"{"service": "A", "types": {"X": {"y": "Y?"}, "Y": {"x": "X"}}, "error": {"message": "string"}, "commands": {}}"#,
            "TN1014",
        ),
        (
            r#"{"service": "A", "aliases": {"X": "u8"}, "types": {"X": {}}, "error": {"message": "string"}, "commands": {}}"#,
            "TN1010",
        ),
        (r#"{"service": "A", "types": {"bool": {}}, "error": {"message": "string"}, "commands": {}}"#, "TN1008"),
        ("// only a remark", "TN1001"),
    ];
    for (text, code) in cases {
        let error = Schema::parse(text).expect_err(text);
        assert_eq!(error.code(), code, "{error}\n{text}");
    }
    let long = " ".repeat(tine_idl::SCHEMA_BYTES_MAX + 1);
    assert!(matches!(Schema::parse(&long).expect_err("too long").problem, Problem::TooMany { what: "bytes", .. }));
}

#[test]
fn deep_and_wide_types_end_in_time() {
    // Each type twice in the next: written out, the last would have 2^60 fields.
    let types: Vec<String> = (0..60)
        .map(|level| match level {
            0 => r#""T0": {"a": "u8"}"#.to_owned(),
            _ => format!(r#""T{level}": {{"a": "T{0}", "b": "T{0}"}}"#, level - 1),
        })
        .collect();
    let text = |types: &str| {
        format!(
            r#"{{"service": "A", "types": {{{types}}}, "error": {{"message": "string"}},
                "commands": {{"C": {{"request": {{"t": "T59"}}, "response": {{}}}}}}}}"#
        )
    };
    let schema = Schema::parse(&text(&types.join(","))).expect("it is a schema");
    assert_eq!(schema.hash_hex().len(), 64);
    for language in Language::ALL {
        assert!(generate(&schema, language).len() < 1 << 20);
    }
    assert!(diff(&schema, &schema).is_empty());
    let chain: Vec<String> = (0..5_000).map(|level| format!(r#""T{level}": {{"a": "T{}?"}}"#, level + 1)).collect();
    assert_eq!(Schema::parse(&text(&chain.join(","))).expect_err("too deep").code(), "TN1004");
}

#[test]
fn the_hash_is_of_the_messages() {
    let original =
        schema(r#""C": {"request": {"a": "P", "b": "H"}, "response": {}}, "D": {"request": {}, "response": {}}"#);
    let same = [
        r#"/* remark */ "C": {"request": {"a": "P", "b": "bin32"}, "response": {}}, "D": {"request": {}, "response": {}}"#,
        r#""D": {"request": {}, "response": {}}, "C": {"request": {"a": "P", "b": "H"}, "response": {}}"#,
        r#""C": {"request": {"a": "P", "b": "H"}, "response": {}}, "D": {"request": {}, "response": "CResponse"}"#,
    ];
    for commands in same {
        assert_eq!(schema(commands).hash(), original.hash(), "{commands}");
    }
    let different = [
        r#""C": {"request": {"b": "H", "a": "P"}, "response": {}}, "D": {"request": {}, "response": {}}"#,
        r#""C": {"request": {"a": "P", "b": "H?"}, "response": {}}, "D": {"request": {}, "response": {}}"#,
        r#""C": {"request": {"a": "P", "b": "H"}, "response": {}, "stream": true}, "D": {"request": {}, "response": {}}"#,
        r#""C": {"request": {"a": "P", "b": "H"}, "response": {}}"#,
    ];
    for commands in different {
        assert_ne!(schema(commands).hash(), original.hash(), "{commands}");
    }
    // Other implementations, and older clients, rely on this form.
    assert_eq!(
        original.canonical_text().lines().nth(2),
        Some(
            "request SC {a:#10ee435128b4cd9e407239c922e89ac3f58a47ed833816297939b295ce5215fe,b:bin32} -> SCResponse {}"
        )
    );
}

#[test]
fn differences_name_what_breaks() {
    let of = |request: &str, response: &str| {
        schema(&format!(r#""C": {{"request": {{{request}}}, "response": {{{response}}}}}"#))
    };
    // Old request and response, new ones, and the breaking and other changes.
    let cases = [
        ((r#""a": "u8""#, ""), (r#""a": "u8""#, ""), 0, 0),
        ((r#""a": "N""#, ""), (r#""a": "u32""#, ""), 0, 0),
        ((r#""a": "u8""#, ""), (r#""a": "u8", "b": "u8""#, ""), 1, 0),
        ((r#""a": "u8""#, ""), (r#""a": "u8", "b": "u8?""#, ""), 0, 1),
        ((r#""a": "u8""#, ""), ("", ""), 0, 1),
        (("", r#""a": "u8""#), ("", ""), 1, 0),
        (("", r#""a": "u8?""#), ("", ""), 0, 1),
        (("", ""), ("", r#""a": "u8""#), 0, 1),
        ((r#""a": "u8""#, ""), (r#""a": "u32""#, ""), 0, 1),
        ((r#""a": "u32""#, ""), (r#""a": "u8""#, ""), 1, 0),
        (("", r#""a": "u8""#), ("", r#""a": "u32""#), 1, 0),
        (("", r#""a": "u32""#), ("", r#""a": "u8""#), 0, 1),
        ((r#""a": "P""#, ""), (r#""a": "P?""#, ""), 0, 1),
        (("", r#""a": "P""#), ("", r#""a": "P?""#), 1, 0),
        ((r#""a": "P[2]""#, ""), (r#""a": "P[]""#, ""), 0, 1),
        ((r#""a": "P[]""#, ""), (r#""a": "P[2]""#, ""), 1, 0),
        ((r#""a": "H""#, ""), (r#""a": "bytes""#, ""), 0, 1),
        ((r#""a": "string""#, ""), (r#""a": "bytes""#, ""), 1, 0),
    ];
    for (old, new, breaking, other) in cases {
        let changes = diff(&of(old.0, old.1), &of(new.0, new.1));
        let found = changes.iter().filter(|change| change.is_breaking).count();
        assert_eq!((found, changes.len() - found), (breaking, other), "{old:?} to {new:?}: {changes:?}");
    }
    let gone = diff(&of("", ""), &schema(r#""D": {"request": {}, "response": {}}"#));
    let texts: Vec<String> = gone.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["SC: the command is gone", "SD: the command is new"]);
    let stream = diff(&of("", ""), &schema(r#""C": {"request": {}, "response": {}, "stream": true}"#));
    assert_eq!(stream[0].to_string(), "SC: the response is now a stream");
    // Inside a shared structure, once however often it is used.
    let with_type = |fields: &str| {
        Schema::parse(&format!(
            r#"{{"service": "S", "types": {{"P": {{{fields}}}}}, "error": {{"message": "string"}},
                "commands": {{"C": {{"request": {{"a": "P[]", "b": "P"}}, "response": {{}}}}}}}}"#
        ))
        .expect("it is a schema")
    };
    let changes = diff(&with_type(r#""x": "u8""#), &with_type(r#""x": "u8", "y": "u8""#));
    let texts: Vec<String> = changes.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["P.y: the field is new and required: old clients do not send it"]);
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text: String) {
        let _ = Schema::parse(&text);
    }

    /// Cuts and changes of a real schema get further than random text.
    #[test]
    fn no_damaged_schema_makes_the_parser_panic(at in 0..ECHO.len(), length in 0usize..40, insert in "[\\[\\]{}\"?:,a-z0-9/*]{0,6}") {
        let end = (at + length).min(ECHO.len());
        let damaged = format!("{}{insert}{}", &ECHO[..at], &ECHO[end..]);
        if let Ok(schema) = Schema::parse(&damaged) {
            for language in Language::ALL {
                generate(&schema, language);
            }
        }
    }
}
