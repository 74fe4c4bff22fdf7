//! The value classes: identities, ids and times as objects that hold their number outside the JavaScript heap.
//!
//! Decoding and encoding a column then copies bytes. The big integer that the magic property shows (`__identity__` and so
//! on) is made when somebody reads it.

use super::decode::{big_from_text, big_u128};
use super::encode::u256_of;
use super::errors::{self, ErrorClass};
use super::raw::{Atom, Call, ClassId, Cx, JsResult, Kind, Value};
use tine_types::{U256, Uuid};

/// The classes by the `magic` of their constructors and accessors.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Identity,
    ConnectionId,
    Uuid,
    Timestamp,
    TimeDuration,
}

const CLASSES: [(Class, &str); 5] = [
    (Class::Identity, "Identity"),
    (Class::ConnectionId, "ConnectionId"),
    (Class::Uuid, "Uuid"),
    (Class::Timestamp, "Timestamp"),
    (Class::TimeDuration, "TimeDuration"),
];

impl Class {
    fn id(self, cx: Cx<'_>) -> ClassId {
        let classes = &cx.state().boot().classes;
        match self {
            Class::Identity => classes.identity,
            Class::ConnectionId => classes.connection_id,
            Class::Uuid => classes.uuid,
            Class::Timestamp => classes.timestamp,
            Class::TimeDuration => classes.time_duration,
        }
    }

    fn member(self, cx: Cx<'_>) -> Atom {
        let atoms = &cx.state().boot().atoms;
        match self {
            Class::Identity => atoms.identity,
            Class::ConnectionId => atoms.connection_id,
            Class::Uuid => atoms.uuid,
            Class::Timestamp => atoms.timestamp,
            Class::TimeDuration => atoms.time_duration,
        }
    }

    /// The number that an object of this class holds, as little-endian bytes; `None` for other values.
    fn number(self, value: &Value<'_>) -> Option<[u8; 32]> {
        let id = self.id(value.cx());
        let mut wide = [0; 32];
        match self {
            Class::Identity => wide = value.block::<32>(id)?,
            Class::ConnectionId | Class::Uuid => wide[..16].copy_from_slice(&value.block::<16>(id)?),
            Class::Timestamp | Class::TimeDuration => wide[..8].copy_from_slice(&value.word(id)?.to_le_bytes()),
        }
        Some(wide)
    }
}

/// Adds the classes and the natives of this file to the object that the SDK gets.
pub(super) fn install<'js>(cx: Cx<'js>, native: &Value<'js>) -> JsResult<()> {
    for (class, name) in CLASSES {
        let magic = class as u16;
        let prototype = cx.object()?;
        let constructor = cx.constructor(name, 1, magic, construct)?;
        constructor.set_constructor_of(&prototype)?;
        prototype.define_getter(class.member(cx), cx.function("get", 0, magic, read_number)?)?;
        cx.set_class_prototype(class.id(cx), prototype);
        native.define_named(name, constructor)?;
    }
    native.define_named("wideHex", cx.function("wideHex", 1, 0, wide_hex)?)?;
    native.define_named("wideBytes", cx.function("wideBytes", 1, 0, wide_bytes)?)?;
    native.define_named("sameWide", cx.function("sameWide", 2, 0, same_wide)?)?;
    native.define_named("parseHex", cx.function("parseHex", 1, 0, parse_hex)?)?;
    native.define_named("parseUuid", cx.function("parseUuid", 1, 0, parse_uuid)?)?;
    native.define_named("describeValue", cx.function("describeValue", 1, 0, describe_value)?)
}

/// `new Identity(number or hex)`, `new Timestamp(micros)` and so on.
fn construct<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let cx = call.cx;
    let (class, name) = CLASSES[usize::from(call.magic)];
    let given = call.arg(0);
    match class {
        Class::Identity => {
            let number = if given.kind() == Kind::String {
                U256::from_hex(&given.to_text()?).ok()
            } else {
                u256_of(&big_integer(&given, name)?)?
            };
            let number = number.ok_or_else(|| out_of_range(cx, name))?;
            cx.block_object(class.id(cx), number.to_le_bytes())
        }
        Class::ConnectionId | Class::Uuid => {
            let number = u256_of(&big_integer(&given, name)?)?.and_then(U256::to_u128);
            let number = number.ok_or_else(|| out_of_range(cx, name))?;
            cx.block_object(class.id(cx), number.to_le_bytes())
        }
        Class::Timestamp | Class::TimeDuration => {
            let number = big_integer(&given, name)?;
            let bits = number.big_int_bits()?;
            if !cx.big_i64(bits as i64)?.strictly_equals(&number) {
                return Err(out_of_range(cx, name));
            }
            cx.word_object(class.id(cx), bits)
        }
    }
}

fn out_of_range(cx: Cx<'_>, name: &str) -> super::raw::Exception {
    errors::throw(cx, ErrorClass::Range, &format!("the number is out of the range of {name}"))
}

/// A value as a big integer: itself, an integral number, or text that holds one.
fn big_integer<'js>(value: &Value<'js>, name: &str) -> JsResult<Value<'js>> {
    let cx = value.cx();
    match value.kind() {
        Kind::ShortBigInt(_) | Kind::BigInt => Ok(value.clone()),
        Kind::Int(_) | Kind::Float(_) => cx.borrow(cx.state().boot().big_int).call(&cx.undefined(), &[value]),
        Kind::String if !value.to_text()?.trim().is_empty() => big_from_text(cx, &value.to_text()?),
        _ => {
            Err(errors::throw(cx, ErrorClass::Type, &format!("{name} is made from a bigint, an integer or its digits")))
        }
    }
}

/// The accessor of the magic property.
fn read_number<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let cx = call.cx;
    let (class, name) = CLASSES[usize::from(call.magic)];
    let this = call.this();
    let Some(wide) = class.number(&this) else {
        return Err(errors::throw(cx, ErrorClass::Type, &format!("not a {name}")));
    };
    let low = i64::from_le_bytes(wide[..8].try_into().expect("eight bytes"));
    match class {
        Class::Timestamp | Class::TimeDuration => cx.big_i64(low),
        Class::Identity | Class::ConnectionId | Class::Uuid => {
            let number = U256::from_le_bytes(wide);
            number.to_u128().map_or_else(|| big_from_text(cx, &number.to_hex()), |number| big_u128(cx, number))
        }
    }
}

/// Class and number of an object of one of our classes.
fn classify(value: &Value<'_>) -> Option<(Class, [u8; 32])> {
    CLASSES.iter().find_map(|(class, _)| class.number(value).map(|number| (*class, number)))
}

/// The bytes, least significant first, of an identity or id.
fn wide_of(value: &Value<'_>) -> JsResult<Vec<u8>> {
    match classify(value) {
        Some((Class::Identity, wide)) => Ok(wide.to_vec()),
        Some((Class::ConnectionId | Class::Uuid, wide)) => Ok(wide[..16].to_vec()),
        _ => Err(errors::throw(value.cx(), ErrorClass::Type, "not an Identity, ConnectionId or Uuid")),
    }
}

/// `wideHex(value)`: digits, most significant first.
fn wide_hex<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let bytes = wide_of(&call.arg(0))?;
    let hex: String = bytes.iter().rev().map(|byte| format!("{byte:02x}")).collect();
    call.cx.string(&hex)
}

/// `wideBytes(value)`: least significant first.
fn wide_bytes<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    call.cx.uint8_array(&wide_of(&call.arg(0))?)
}

/// `sameWide(a, b)`: of one class and equal.
fn same_wide<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let (a, b) = (classify(&call.arg(0)), classify(&call.arg(1)));
    Ok(call.cx.bool(a.is_some() && a == b))
}

/// `parseHex(text)`: a big integer.
fn parse_hex<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    match U256::from_hex(&call.arg(0).to_text()?) {
        Ok(number) => big_from_text(call.cx, &number.to_hex()),
        Err(error) => Err(errors::throw(call.cx, ErrorClass::Type, &format!("not hexadecimal: {error}"))),
    }
}

/// `parseUuid(text)`: a big integer.
fn parse_uuid<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    match Uuid::parse(&call.arg(0).to_text()?) {
        Ok(uuid) => big_u128(call.cx, uuid.get()),
        Err(error) => Err(errors::throw(call.cx, ErrorClass::Type, &format!("not a UUID: {error}"))),
    }
}

/// `describeValue(value)`: how the console shows one of our objects; undefined for others.
fn describe_value<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let cx = call.cx;
    let Some((class, wide)) = classify(&call.arg(0)) else { return Ok(cx.undefined()) };
    let micros = i64::from_le_bytes(wide[..8].try_into().expect("eight bytes"));
    let low = u128::from_le_bytes(wide[..16].try_into().expect("sixteen bytes"));
    let text = match class {
        Class::Identity => format!("Identity({})", tine_types::Identity::from_le_bytes(wide)),
        Class::ConnectionId => format!("ConnectionId({})", tine_types::ConnectionId::new(low)),
        Class::Uuid => format!("Uuid({})", Uuid::new(low)),
        Class::Timestamp => format!("Timestamp({})", tine_types::Timestamp::from_micros(micros)),
        Class::TimeDuration => format!("TimeDuration({micros}us)"),
    };
    cx.string(&text)
}
