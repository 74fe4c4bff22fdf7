//! Values as people read them.

use serde_json::Value;
use tine_types::{AlgebraicType, Timestamp};

use crate::output::printable;

/// A SATS-JSON value of a known type in short form: identities as bare hexadecimal, timestamps as dates,
/// options as their value or `-`, variants by name. Untyped SQL rows (products as arrays, sums as
/// `[tag, value]`) read the same.
pub fn value_text(ty: &AlgebraicType, value: &Value) -> String {
    match (ty, value) {
        _ if ty.is_identity() || ty.is_connection_id() || ty.is_uuid() => hex_text(only_field(value)),
        _ if ty.is_timestamp() => timestamp_text(only_field(value)),
        _ if ty.is_time_duration() => microseconds_text(only_field(value)),
        (AlgebraicType::Sum(sum), _) => sum_text(sum, value),
        (AlgebraicType::Product(product), Value::Array(fields)) => {
            let fields = product.elements.iter().zip(fields);
            fields_text(fields.map(|(element, field)| (element.name.as_deref(), value_text(&element.ty, field))))
        }
        (AlgebraicType::Product(product), Value::Object(fields)) => {
            let field = |element: &'_ tine_types::ProductTypeElement| {
                let name = element.name.as_deref().unwrap_or_default();
                (element.name.clone(), value_text(&element.ty, fields.get(name).unwrap_or(&Value::Null)))
            };
            let fields: Vec<_> = product.elements.iter().map(field).collect();
            fields_text(fields.iter().map(|(name, text)| (name.as_deref(), text.clone())))
        }
        (AlgebraicType::Array(element), Value::Array(items)) => {
            let items: Vec<String> = items.iter().map(|item| value_text(element, item)).collect();
            format!("[{}]", items.join(", "))
        }
        (_, Value::String(text)) => printable(text),
        (_, other) => other.to_string(),
    }
}

/// A row as `name=value` pairs; strings are quoted, so that the pairs stay apart.
pub fn row_text<'a>(columns: impl Iterator<Item = (&'a str, &'a AlgebraicType, &'a Value)>) -> String {
    let pair = |(name, ty, value): (&str, &AlgebraicType, &Value)| match (ty, value) {
        (AlgebraicType::String, Value::String(text)) => format!("{name}={text:?}"),
        _ => format!("{name}={}", value_text(ty, value)),
    };
    columns.map(pair).collect::<Vec<_>>().join(" ")
}

/// The value of a product with one field, in either form.
fn only_field(value: &Value) -> &Value {
    match value {
        Value::Object(fields) if fields.len() == 1 => fields.values().next().unwrap_or(value),
        Value::Array(fields) if fields.len() == 1 => &fields[0],
        other => other,
    }
}

fn hex_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.trim_start_matches("0x").to_owned(),
        other => other.to_string(),
    }
}

fn timestamp_text(value: &Value) -> String {
    match value.as_i64() {
        Some(micros) => Timestamp::from_micros(micros).to_rfc3339(),
        None => value.as_str().map_or_else(|| value.to_string(), str::to_owned),
    }
}

fn microseconds_text(value: &Value) -> String {
    match value.as_i64() {
        Some(micros) if micros < 0 => format!("-{}", crate::output::duration_text(micros.unsigned_abs())),
        Some(micros) => crate::output::duration_text(micros.unsigned_abs()),
        None => value.to_string(),
    }
}

fn sum_text(sum: &tine_types::SumType, value: &Value) -> String {
    let variant = match value {
        Value::Object(fields) => fields.iter().next().and_then(|(name, payload)| {
            sum.variants.iter().find(|variant| variant.name.as_deref() == Some(name)).map(|variant| (variant, payload))
        }),
        Value::Array(parts) => match parts.as_slice() {
            [tag, payload] => {
                tag.as_u64().and_then(|tag| sum.variants.get(tag as usize)).map(|variant| (variant, payload))
            }
            _ => None,
        },
        _ => None,
    };
    let Some((variant, payload)) = variant else {
        return value.to_string();
    };
    let is_unit = matches!(&variant.ty, AlgebraicType::Product(product) if product.elements.is_empty());
    match variant.name.as_deref() {
        Some("some") => value_text(&variant.ty, payload),
        Some("none") => "-".to_owned(),
        Some(name) if is_unit => name.to_owned(),
        Some(name) => format!("{name}({})", value_text(&variant.ty, payload)),
        None => value_text(&variant.ty, payload),
    }
}

fn fields_text<'a>(fields: impl Iterator<Item = (Option<&'a str>, String)>) -> String {
    let field = |(name, text): (Option<&str>, String)| match name {
        Some(name) => format!("{name}: {text}"),
        None => text,
    };
    format!("({})", fields.map(field).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tine_client::schema::type_from_json;

    use super::value_text;

    #[test]
    fn values() {
        let field = |name: &str, ty| json!({ "name": { "some": name }, "algebraic_type": ty });
        let product = |elements: serde_json::Value| json!({ "Product": { "elements": elements } });
        let option =
            json!({ "Sum": { "variants": [field("some", json!({"U8": []})), field("none", product(json!([])))] } });
        let color =
            json!({ "Sum": { "variants": [field("Red", product(json!([]))), field("Mix", json!({"U8": []}))] } });
        let point = product(json!([field("x", json!({"I32": []})), field("name", json!({"String": []}))]));
        let identity = product(json!([field("__identity__", json!({"U256": []}))]));
        let time = product(json!([field("__timestamp_micros_since_unix_epoch__", json!({"I64": []}))]));
        let table = [
            (&json!({"U64": []}), json!(18_446_744_073_709_551_615_u64), "18446744073709551615"),
            (&json!({"String": []}), json!("a\u{7}b"), "a\\u{7}b"),
            (&option, json!({"some": 3}), "3"),
            (&option, json!([0, 3]), "3"),
            (&option, json!([1, []]), "-"),
            (&color, json!({"Red": []}), "Red"),
            (&color, json!([1, 9]), "Mix(9)"),
            (&color, json!([7, 9]), "[7,9]"),
            (&point, json!([1, "a"]), "(x: 1, name: a)"),
            (&point, json!({"name": "a", "x": 1}), "(x: 1, name: a)"),
            (&identity, json!({"__identity__": "0xc2"}), "c2"),
            (&identity, json!(["0xc2"]), "c2"),
            (&json!({"Array": {"U16": []}}), json!([1, 2]), "[1, 2]"),
        ];
        for (ty, value, text) in table {
            assert_eq!(value_text(&type_from_json(ty).expect("a type"), &value), text, "{value}");
        }
        let shown = value_text(&type_from_json(&time).expect("a type"), &json!([1_000_000]));
        assert!(shown.starts_with("1970-01-01T00:00:01"), "{shown}");
    }
}
