//! BSATN to JSON.

use serde_json::{Map, Number, Value};

use crate::bsatn::walk::{begin_walk, check_depth, read_element_count, read_variant, spend_node};
use crate::bsatn::{self, DecodeError, Reader, VALUE_NODES_MAX};
use crate::hex;
use crate::{AlgebraicType, AlgebraicValue, ProductType, SumType};

/// Which of the written forms to use.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    Named,
    Sql,
    Row,
}

/// Returns `value`, which must be of type `ty`, as SATS-JSON.
///
/// # Panics
/// If the value is not of the type, or has more than [`VALUE_NODES_MAX`] nodes.
pub fn value_to_json(ty: &AlgebraicType, value: &AlgebraicValue) -> Value {
    let mut bytes = Vec::new();
    bsatn::encode_value(value, &mut bytes);
    let mut reader = Reader::new(&bytes);
    let json = bsatn_to_json(ty, &mut reader).expect("the value is of the type");
    assert!(reader.is_empty(), "the value is of the type");
    json
}

/// Reads one value of type `ty` and returns it as SATS-JSON.
///
/// # Errors
/// Bytes that are no value of the type, and values of more than [`VALUE_NODES_MAX`] nodes.
pub fn bsatn_to_json(ty: &AlgebraicType, reader: &mut Reader<'_>) -> Result<Value, DecodeError> {
    begin_walk(reader);
    Writer::new(Form::Named).value(ty, reader, 0)
}

/// [`bsatn_to_json`] for a bare product, such as a row.
///
/// # Errors
/// As for [`bsatn_to_json`].
pub fn product_to_json(product: &ProductType, reader: &mut Reader<'_>) -> Result<Value, DecodeError> {
    begin_walk(reader);
    Writer::new(Form::Named).product(product, reader, 0)
}

/// Reads one value of type `ty` and returns it in the untyped form of SQL results.
///
/// # Errors
/// As for [`bsatn_to_json`].
pub fn bsatn_to_sql_json(ty: &AlgebraicType, reader: &mut Reader<'_>) -> Result<Value, DecodeError> {
    begin_walk(reader);
    Writer::new(Form::Sql).value(ty, reader, 0)
}

/// [`bsatn_to_sql_json`] for a bare product, such as a row.
///
/// # Errors
/// As for [`bsatn_to_json`].
pub fn product_to_sql_json(product: &ProductType, reader: &mut Reader<'_>) -> Result<Value, DecodeError> {
    begin_walk(reader);
    Writer::new(Form::Sql).product(product, reader, 0)
}

/// Reads a row and returns it in the form of the protocol `v1.json`: columns have names, as have products in them, but sums are
/// `[tag, value]`, and what lies in an array is in the untyped form.
///
/// # Errors
/// As for [`bsatn_to_json`].
pub fn row_to_json(row: &ProductType, reader: &mut Reader<'_>) -> Result<Value, DecodeError> {
    begin_walk(reader);
    Writer::new(Form::Row).product(row, reader, 0)
}

struct Writer {
    form: Form,
    nodes_left: usize,
}

impl Writer {
    fn new(form: Form) -> Self {
        Self { form, nodes_left: VALUE_NODES_MAX }
    }

    fn value(&mut self, ty: &AlgebraicType, reader: &mut Reader<'_>, depth: usize) -> Result<Value, DecodeError> {
        use AlgebraicType::*;
        spend_node(reader, &mut self.nodes_left)?;
        Ok(match ty {
            Bool => Value::Bool(reader.bool()?),
            I8 => reader.i8()?.into(),
            U8 => reader.u8()?.into(),
            I16 => reader.i16()?.into(),
            U16 => reader.u16()?.into(),
            I32 => reader.i32()?.into(),
            U32 => reader.u32()?.into(),
            I64 => reader.i64()?.into(),
            U64 => reader.u64()?.into(),
            I128 => number(&reader.i128()?.to_string()),
            U128 => number(&reader.u128()?.to_string()),
            I256 => reader.i256()?.to_hex().into(),
            U256 => reader.u256()?.to_hex().into(),
            F32 => {
                let value = reader.f32()?;
                float(value.into(), || format!("{value:?}"))
            }
            F64 => {
                let value = reader.f64()?;
                float(value, || format!("{value:?}"))
            }
            String => reader.str()?.into(),
            Array(element) => return self.array(element, reader, depth),
            Product(product) => return self.product(product, reader, depth),
            Sum(sum) => return self.sum(sum, reader, depth),
            Ref(reference) => {
                return Err(DecodeError::UnresolvedRef { reference: reference.0 });
            }
        })
    }

    fn array(&mut self, element: &AlgebraicType, reader: &mut Reader<'_>, depth: usize) -> Result<Value, DecodeError> {
        check_depth(reader, depth)?;
        if *element == AlgebraicType::U8 {
            let bytes = reader.bytes()?;
            let mut text = String::with_capacity(2 * bytes.len());
            hex::push_hex(&mut text, bytes.iter().copied());
            return Ok(text.into());
        }
        let count = read_element_count(element, reader)?;
        let outside = self.form;
        if outside == Form::Row {
            self.form = Form::Sql;
        }
        let elements = (0..count).map(|_| self.value(element, reader, depth + 1)).collect();
        self.form = outside;
        elements
    }

    fn product(&mut self, product: &ProductType, reader: &mut Reader<'_>, depth: usize) -> Result<Value, DecodeError> {
        check_depth(reader, depth)?;
        let is_object = self.form != Form::Sql && !product.elements.is_empty() && product.is_named();
        if !is_object {
            let fields = product.elements.iter();
            return fields.map(|field| self.value(&field.ty, reader, depth + 1)).collect();
        }
        let mut object = Map::new();
        for field in &product.elements {
            let name = field.name().unwrap_or_default();
            object.insert(name.to_owned(), self.value(&field.ty, reader, depth + 1)?);
        }
        Ok(Value::Object(object))
    }

    fn sum(&mut self, sum: &SumType, reader: &mut Reader<'_>, depth: usize) -> Result<Value, DecodeError> {
        check_depth(reader, depth)?;
        let (tag, payload) = read_variant(sum, reader)?;
        let value = self.value(payload, reader, depth + 1)?;
        if self.form != Form::Named {
            return Ok(Value::Array(vec![tag.into(), value]));
        }
        let key = match sum.variants[usize::from(tag)].name() {
            Some(name) => name.to_owned(),
            None => tag.to_string(),
        };
        Ok(Value::Object(Map::from_iter([(key, value)])))
    }
}

fn number(text: &str) -> Value {
    Value::Number(text.parse::<Number>().expect("digits are a JSON number"))
}

/// `text` is the shortest that reads back as the same float, which for 32 bits is shorter than what
/// the same number has in 64.
fn float(value: f64, text: impl FnOnce() -> String) -> Value {
    if value.is_nan() {
        "NaN".into()
    } else if value.is_infinite() {
        if value > 0.0 { "Infinity".into() } else { "-Infinity".into() }
    } else {
        number(&text())
    }
}
