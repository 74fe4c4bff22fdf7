//! `TextEncoder` and `TextDecoder` as natives: the SDK makes one of them for every string that it writes or reads.

use super::super::console;
use super::super::errors::{self, ErrorClass};
use super::super::raw::{Call, ClassId, Cx, JsResult, Kind, Value};
use super::boot::state;

const FATAL: u64 = 1;

/// The classes of this file.
pub(super) struct TextClasses {
    encoder: ClassId,
    decoder: ClassId,
}

/// Defines both constructors on the global object.
pub(super) fn install(cx: Cx<'_>) -> JsResult<TextClasses> {
    let encoder = cx.new_class("TextEncoder", false)?;
    let prototype = cx.object()?;
    prototype.define_named("encode", cx.function("encode", 0, 0, encode)?)?;
    prototype.define_getter(cx.atom("encoding")?, cx.function("encoding", 0, 0, encoding)?)?;
    define_class(cx, "TextEncoder", encoder, cx.constructor("TextEncoder", 0, 0, new_encoder)?, prototype)?;

    let decoder = cx.new_class("TextDecoder", false)?;
    let prototype = cx.object()?;
    prototype.define_named("decode", cx.function("decode", 0, 0, decode)?)?;
    prototype.define_getter(cx.atom("encoding")?, cx.function("encoding", 0, 0, encoding)?)?;
    prototype.define_getter(cx.atom("fatal")?, cx.function("fatal", 0, 0, fatal)?)?;
    prototype.define_getter(cx.atom("ignoreBOM")?, cx.function("ignoreBOM", 0, 0, ignore_bom)?)?;
    define_class(cx, "TextDecoder", decoder, cx.constructor("TextDecoder", 0, 0, new_decoder)?, prototype)?;
    Ok(TextClasses { encoder, decoder })
}

fn define_class<'js>(
    cx: Cx<'js>,
    name: &str,
    class: ClassId,
    constructor: Value<'js>,
    prototype: Value<'js>,
) -> JsResult<()> {
    constructor.set_constructor_of(&prototype)?;
    cx.set_class_prototype(class, prototype);
    cx.global().define_hidden(name, constructor)
}

fn new_encoder<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    call.cx.word_object(state(call.cx).text.encoder, 0)
}

/// `encode(text)`
fn encode<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let text = call.arg(0);
    match text.kind() {
        Kind::Undefined => call.cx.uint8_array(&[]),
        _ => text.with_text(|text| call.cx.uint8_array(text.as_bytes()))?,
    }
}

fn encoding<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    call.cx.string("utf-8")
}

/// `new TextDecoder(label, { fatal, ignoreBOM })`
fn new_decoder<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let cx = call.cx;
    let label = call.arg(0);
    if !label.is_undefined() && !label.with_text(is_utf8)? {
        return Err(errors::throw(cx, ErrorClass::Range, "TextDecoder: the only encoding is utf-8"));
    }
    let mut word = 0;
    let options = call.arg(1);
    if options.is_object() {
        if options.get_named("ignoreBOM")?.is_truthy() {
            return Err(errors::throw(cx, ErrorClass::Type, "TextDecoder: ignoreBOM is not supported"));
        }
        word |= if options.get_named("fatal")?.is_truthy() { FATAL } else { 0 };
    }
    cx.word_object(state(cx).text.decoder, word)
}

/// Whether a label means UTF-8.
fn is_utf8(label: &str) -> bool {
    label == "utf-8" || ["utf-8", "utf8", "unicode-1-1-utf-8"].contains(&&*label.trim().to_ascii_lowercase())
}

fn options_of(call: &Call<'_>) -> JsResult<u64> {
    let word = call.this().word(state(call.cx).text.decoder);
    word.ok_or_else(|| errors::throw(call.cx, ErrorClass::Type, "not a TextDecoder"))
}

fn fatal<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    Ok(call.cx.bool(options_of(call)? & FATAL != 0))
}

fn ignore_bom<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    options_of(call)?;
    Ok(call.cx.bool(false))
}

/// `decode(bytes)`
fn decode<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let cx = call.cx;
    let fatal = options_of(call)? & FATAL != 0;
    let bytes = call.arg(0);
    if bytes.is_undefined() {
        return cx.string("");
    }
    let options = call.arg(1);
    if options.is_object() && options.get_named("stream")?.is_truthy() {
        return Err(errors::throw(cx, ErrorClass::Type, "TextDecoder: streaming is not supported"));
    }
    if bytes.is_data_view() {
        return decode_view(cx, &bytes, fatal);
    }
    console::decode(cx, &bytes, fatal, false)
}

/// Decodes the bytes of a `DataView`, which is read through its accessors.
fn decode_view<'js>(cx: Cx<'js>, view: &Value<'js>, fatal: bool) -> JsResult<Value<'js>> {
    let number = |name| view.get_named(name).and_then(|value| value.to_number()).map(|number| number as usize);
    let (offset, length) = (number("byteOffset")?, number("byteLength")?);
    let bytes = view.get_named("buffer")?.with_array_buffer(|bytes| {
        offset.checked_add(length).and_then(|end| bytes.get(offset..end)).map(<[u8]>::to_vec)
    });
    match bytes.flatten() {
        Some(bytes) => console::decode(cx, &cx.array_buffer(&bytes)?, fatal, false),
        None => Err(errors::throw(cx, ErrorClass::Type, "decode() needs an ArrayBuffer or a view")),
    }
}
