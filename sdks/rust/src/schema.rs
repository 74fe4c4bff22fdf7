//! What a database looks like from outside: its tables, columns and functions.
//!
//! Read from the SATS-JSON of a module definition (version 10), as `GET .../schema?version=10` sends
//! it. All types are resolved: no reference into a typespace is left.

use serde_json::Value;
use thiserror::Error;
use tine_types::{
    AlgebraicType, ProductType, ProductTypeElement, SumType, SumTypeVariant, TypeRef, Typespace, module_def::snake_case,
};

/// Nesting bound of a type; deeper ones are refused before they can exhaust the stack.
const TYPE_DEPTH_MAX: usize = 64;

/// Tables and functions of a database, in the order of the module.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    /// The tables.
    pub tables: Vec<Table>,
    /// The reducers, lifecycle and scheduled ones included.
    pub reducers: Vec<Function>,
    /// The procedures.
    pub procedures: Vec<Function>,
}

/// A table.
#[derive(Clone, Debug)]
pub struct Table {
    /// The canonical name, used in queries and updates.
    pub name: String,
    /// The name in the module's source.
    pub source_name: String,
    /// Its columns.
    pub columns: Vec<Column>,
    /// Column positions of the primary key; empty without one.
    pub primary_key: Vec<usize>,
    /// Whether clients other than the owner may read it.
    pub public: bool,
    /// Whether rows are only announced, never kept.
    pub is_event: bool,
    /// The function that its rows schedule.
    pub schedules: Option<String>,
    /// The row type: the columns' types in one product, under the columns' names.
    pub row_type: AlgebraicType,
}

/// A column or parameter.
#[derive(Clone, Debug)]
pub struct Column {
    /// Its canonical name.
    pub name: String,
    /// Its type.
    pub ty: AlgebraicType,
}

/// A reducer or procedure.
#[derive(Clone, Debug)]
pub struct Function {
    /// The canonical name, used in calls.
    pub name: String,
    /// The name in the module's source.
    pub source_name: String,
    /// Its parameters.
    pub parameters: Vec<Column>,
    /// What it returns; none for a reducer that returns nothing.
    pub returns: Option<AlgebraicType>,
    /// Whether clients may call it.
    pub callable: bool,
    /// `init`, `connect` or `disconnect` for a lifecycle hook.
    pub lifecycle: Option<&'static str>,
}

/// A module definition that cannot be read.
#[derive(Debug, Error)]
#[error("the module definition is not understood: {0}")]
pub struct SchemaError(String);

impl Schema {
    /// Reads a module definition.
    ///
    /// # Errors
    /// [`SchemaError`] for anything but the JSON of a version 10 definition.
    pub fn from_json(definition: &Value) -> Result<Schema, SchemaError> {
        let definition = definition.get("V10").unwrap_or(definition);
        let sections = definition.get("sections").and_then(Value::as_array).ok_or_else(|| wrong("no `sections`"))?;
        let reader = Reader::new(sections)?;
        let mut schema = Schema {
            tables: reader.items("Tables").map(|table| reader.table(table)).collect::<Result<_, _>>()?,
            reducers: reader.items("Reducers").map(|item| reader.function(item, false)).collect::<Result<_, _>>()?,
            procedures: reader.items("Procedures").map(|item| reader.function(item, true)).collect::<Result<_, _>>()?,
        };
        reader.mark_special_functions(&mut schema)?;
        Ok(schema)
    }

    /// The table of a canonical or source name.
    pub fn table(&self, name: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.name == name || table.source_name == name)
    }

    /// The reducer or procedure of a canonical or source name, and whether it is a procedure.
    pub fn function(&self, name: &str) -> Option<(&Function, bool)> {
        let find = |functions: &'_ [Function]| functions.iter().position(|f| f.name == name || f.source_name == name);
        match find(&self.reducers) {
            Some(position) => Some((&self.reducers[position], false)),
            None => find(&self.procedures).map(|position| (&self.procedures[position], true)),
        }
    }
}

/// The sections of a definition with what is needed to resolve names and types.
struct Reader<'a> {
    sections: &'a [Value],
    typespace: Typespace,
    /// Whether names without an explicit canonical one are converted to snake case.
    converts_case: bool,
}

impl<'a> Reader<'a> {
    fn new(sections: &'a [Value]) -> Result<Reader<'a>, SchemaError> {
        let mut reader = Reader { sections, typespace: Typespace(Vec::new()), converts_case: true };
        let types = reader.section("Typespace").map(|section| section.get("types").unwrap_or(section));
        if let Some(types) = types.and_then(Value::as_array) {
            reader.typespace = Typespace(types.iter().map(type_from_json).collect::<Result<_, _>>()?);
        }
        reader.converts_case = reader.section("CaseConversionPolicy").is_none_or(|policy| policy.get("None").is_none());
        Ok(reader)
    }

    fn section(&self, name: &str) -> Option<&'a Value> {
        self.sections.iter().find_map(|section| section.get(name))
    }

    fn items(&self, section: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
        self.section(section).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default().iter()
    }

    /// The canonical name of a table or function.
    fn canonical(&self, kind: &str, source_name: &str) -> String {
        let entries =
            self.section("ExplicitNames").and_then(|section| section.get("entries")).and_then(Value::as_array);
        let explicit = entries.into_iter().flatten().filter_map(|entry| entry.get(kind)).find_map(|entry| {
            let matches = entry.get("source_name").and_then(Value::as_str) == Some(source_name);
            matches.then(|| entry.get("canonical_name").and_then(Value::as_str)).flatten()
        });
        match explicit {
            Some(name) => name.to_owned(),
            None => self.convert(source_name),
        }
    }

    fn convert(&self, name: &str) -> String {
        if self.converts_case { snake_case(name) } else { name.to_owned() }
    }

    fn resolve(&self, ty: &AlgebraicType) -> Result<AlgebraicType, SchemaError> {
        self.typespace.inline(ty).map_err(|error| wrong(error.to_string()))
    }

    fn columns(&self, product: &ProductType) -> Vec<Column> {
        let name = |(position, element): (usize, &ProductTypeElement)| match &element.name {
            Some(name) => self.convert(name),
            None => position.to_string(),
        };
        product
            .elements
            .iter()
            .enumerate()
            .map(|(i, element)| Column { name: name((i, element)), ty: element.ty.clone() })
            .collect()
    }

    fn table(&self, table: &Value) -> Result<Table, SchemaError> {
        let source_name = text(table, "source_name")?;
        let row = table.get("product_type_ref").and_then(Value::as_u64).and_then(|index| u32::try_from(index).ok());
        let row = row.ok_or_else(|| wrong(format!("table `{source_name}` has no row type")))?;
        let AlgebraicType::Product(product) = self.resolve(&AlgebraicType::Ref(TypeRef(row)))? else {
            return Err(wrong(format!("the row type of table `{source_name}` is not a product")));
        };
        let columns = self.columns(&product);
        let primary_key = table.get("primary_key").and_then(Value::as_array).into_iter().flatten();
        Ok(Table {
            name: self.canonical("Table", source_name),
            source_name: source_name.to_owned(),
            row_type: row_type(&columns),
            columns,
            primary_key: primary_key.filter_map(Value::as_u64).map(|position| position as usize).collect(),
            public: variant_name(table.get("table_access")) == Some("Public"),
            is_event: table.get("is_event").and_then(Value::as_bool).unwrap_or(false),
            schedules: None,
        })
    }

    fn function(&self, function: &Value, is_procedure: bool) -> Result<Function, SchemaError> {
        let source_name = text(function, "source_name")?;
        let parameters = function.get("params").ok_or_else(|| wrong(format!("`{source_name}` has no parameters")))?;
        let parameters = self.resolve(&AlgebraicType::Product(product_from_json(parameters, 0)?))?;
        let AlgebraicType::Product(parameters) = parameters else {
            return Err(wrong(format!("the parameters of `{source_name}` are not a product")));
        };
        let returns = function.get(if is_procedure { "return_type" } else { "ok_return_type" });
        let returns = returns.map(type_from_json).transpose()?.map(|ty| self.resolve(&ty)).transpose()?;
        Ok(Function {
            name: self.canonical("Function", source_name),
            source_name: source_name.to_owned(),
            parameters: self.columns(&parameters),
            returns: returns.filter(|ty| !matches!(ty, AlgebraicType::Product(product) if product.elements.is_empty())),
            callable: variant_name(function.get("visibility")) != Some("Private"),
            lifecycle: None,
        })
    }

    /// Lifecycle hooks and scheduled functions are named in sections of their own.
    fn mark_special_functions(&self, schema: &mut Schema) -> Result<(), SchemaError> {
        for hook in self.items("LifeCycleReducers") {
            let name = text(hook, "function_name")?;
            let kind = match variant_name(hook.get("lifecycle_spec").or_else(|| hook.get("spec"))) {
                Some("Init") => "init",
                Some("OnConnect") => "connect",
                Some("OnDisconnect") => "disconnect",
                other => return Err(wrong(format!("unknown lifecycle hook {other:?}"))),
            };
            if let Some(reducer) = schema.reducers.iter_mut().find(|f| f.source_name == name) {
                reducer.lifecycle = Some(kind);
                reducer.callable = false;
            }
        }
        for schedule in self.items("Schedules") {
            let (table, function) = (text(schedule, "table_name")?, text(schedule, "function_name")?);
            let canonical = self.canonical("Function", function);
            if let Some(table) = schema.tables.iter_mut().find(|t| t.source_name == table || t.name == table) {
                table.schedules = Some(canonical);
            }
            let functions = schema.reducers.iter_mut().chain(&mut schema.procedures);
            functions.filter(|f| f.source_name == function).for_each(|f| f.callable = false);
        }
        Ok(())
    }
}

/// A field of a product or a variant of a sum.
type Element = (Option<Box<str>>, AlgebraicType);

/// The columns' types in one product, under the columns' canonical names.
fn row_type(columns: &[Column]) -> AlgebraicType {
    let element = |column: &Column| ProductTypeElement::named(&column.name, column.ty.clone());
    AlgebraicType::Product(ProductType { elements: columns.iter().map(element).collect() })
}

fn wrong(reason: impl Into<String>) -> SchemaError {
    SchemaError(reason.into())
}

fn text<'v>(value: &'v Value, field: &str) -> Result<&'v str, SchemaError> {
    value.get(field).and_then(Value::as_str).ok_or_else(|| wrong(format!("no `{field}` where one is needed")))
}

/// The name of a sum's variant: `{"Name": ..}`, or the bare name.
fn variant_name(value: Option<&Value>) -> Option<&str> {
    match value? {
        Value::String(name) => Some(name),
        Value::Object(fields) => fields.keys().next().map(String::as_str),
        _ => None,
    }
}

/// Reads a type in SATS-JSON, as module definitions and SQL replies hold it.
///
/// # Errors
/// [`SchemaError`] for anything else, and for one that is nested too deeply.
pub fn type_from_json(value: &Value) -> Result<AlgebraicType, SchemaError> {
    type_at_depth(value, 0)
}

fn type_at_depth(value: &Value, depth: usize) -> Result<AlgebraicType, SchemaError> {
    if depth > TYPE_DEPTH_MAX {
        return Err(wrong("a type is nested too deeply"));
    }
    let (name, payload) = match value {
        Value::Object(fields) if fields.len() == 1 => fields.iter().next().map(|(k, v)| (k.as_str(), v)),
        Value::String(name) => Some((name.as_str(), &Value::Null)),
        _ => None,
    }
    .ok_or_else(|| wrong("a type is not an object with one key"))?;
    Ok(match name {
        "Ref" => {
            let index = payload.as_u64().and_then(|index| u32::try_from(index).ok());
            AlgebraicType::Ref(TypeRef(index.ok_or_else(|| wrong("a type reference is not a number"))?))
        }
        "Product" => AlgebraicType::Product(product_from_json(payload, depth)?),
        "Sum" => {
            let variants = elements(payload, "variants", depth)?;
            let variants = variants.into_iter().map(|(name, ty)| SumTypeVariant { name, ty }).collect();
            AlgebraicType::Sum(SumType { variants })
        }
        "Array" => AlgebraicType::Array(Box::new(type_at_depth(payload, depth + 1)?)),
        "String" => AlgebraicType::String,
        "Bool" => AlgebraicType::Bool,
        "I8" => AlgebraicType::I8,
        "U8" => AlgebraicType::U8,
        "I16" => AlgebraicType::I16,
        "U16" => AlgebraicType::U16,
        "I32" => AlgebraicType::I32,
        "U32" => AlgebraicType::U32,
        "I64" => AlgebraicType::I64,
        "U64" => AlgebraicType::U64,
        "I128" => AlgebraicType::I128,
        "U128" => AlgebraicType::U128,
        "I256" => AlgebraicType::I256,
        "U256" => AlgebraicType::U256,
        "F32" => AlgebraicType::F32,
        "F64" => AlgebraicType::F64,
        other => return Err(wrong(format!("unknown type `{other}`"))),
    })
}

fn product_from_json(value: &Value, depth: usize) -> Result<ProductType, SchemaError> {
    let elements = elements(value, "elements", depth)?;
    Ok(ProductType { elements: elements.into_iter().map(|(name, ty)| ProductTypeElement { name, ty }).collect() })
}

fn elements(value: &Value, field: &str, depth: usize) -> Result<Vec<Element>, SchemaError> {
    let elements =
        value.get(field).and_then(Value::as_array).ok_or_else(|| wrong(format!("a type has no `{field}`")))?;
    let read = |element: &Value| {
        let ty = element.get("algebraic_type").ok_or_else(|| wrong("an element has no type"))?;
        let name = element.get("name").and_then(crate::http::reply::option_string);
        Ok((name.map(String::into_boxed_str), type_at_depth(ty, depth + 1)?))
    };
    elements.iter().map(read).collect()
}

/// A type in short words, for people: `u32`, `string`, `option<identity>`, `(x: f32, y: f32)`.
pub fn describe_type(ty: &AlgebraicType) -> String {
    match ty {
        _ if ty.is_identity() => "identity".to_owned(),
        _ if ty.is_connection_id() => "connection_id".to_owned(),
        _ if ty.is_timestamp() => "timestamp".to_owned(),
        _ if ty.is_time_duration() => "duration".to_owned(),
        _ if ty.is_uuid() => "uuid".to_owned(),
        _ if ty.is_schedule_at() => "schedule_at".to_owned(),
        AlgebraicType::Ref(reference) => format!("&{}", reference.0),
        AlgebraicType::Array(element) if **element == AlgebraicType::U8 => "bytes".to_owned(),
        AlgebraicType::Array(element) => format!("array<{}>", describe_type(element)),
        AlgebraicType::Product(product) => {
            let fields: Vec<String> =
                product.elements.iter().map(|e| describe_field(e.name.as_deref(), &e.ty)).collect();
            format!("({})", fields.join(", "))
        }
        AlgebraicType::Sum(sum) => describe_sum(sum),
        scalar => format!("{scalar:?}").to_lowercase(),
    }
}

fn describe_sum(sum: &SumType) -> String {
    if let [some, none] = &*sum.variants
        && some.name.as_deref() == Some("some")
        && none.name.as_deref() == Some("none")
    {
        return format!("option<{}>", describe_type(&some.ty));
    }
    let is_unit = |ty: &AlgebraicType| matches!(ty, AlgebraicType::Product(product) if product.elements.is_empty());
    let variant = |variant: &SumTypeVariant| match variant.name.as_deref() {
        Some(name) if is_unit(&variant.ty) => name.to_owned(),
        name => describe_field(name, &variant.ty),
    };
    sum.variants.iter().map(variant).collect::<Vec<_>>().join(" | ")
}

fn describe_field(name: Option<&str>, ty: &AlgebraicType) -> String {
    match name {
        Some(name) => format!("{name}: {}", describe_type(ty)),
        None => describe_type(ty),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Schema, describe_type, type_from_json};

    fn field(name: &str, ty: serde_json::Value) -> serde_json::Value {
        json!({ "name": { "some": name }, "algebraic_type": ty })
    }

    #[test]
    fn a_definition_is_read() {
        let product = |elements| json!({ "Product": { "elements": elements } });
        let definition = json!({ "sections": [
            { "Typespace": { "types": [product(json!([field("id", json!({"U64": []})), field("ownerName", json!({"Ref": 1}))])), json!({"String": []})] } },
            { "Tables": [{ "source_name": "bigItem", "product_type_ref": 0, "primary_key": [0], "table_access": {"Public": []}, "is_event": false },
                         { "source_name": "tick", "product_type_ref": 0, "primary_key": [], "table_access": {"Private": []}, "is_event": true }] },
            { "Reducers": [{ "source_name": "addItem", "params": { "elements": [field("id", json!({"U64": []}))] }, "visibility": {"ClientCallable": []},
                             "ok_return_type": product(json!([])), "err_return_type": {"String": []} },
                           { "source_name": "onInit", "params": { "elements": [] }, "visibility": {"ClientCallable": []}, "ok_return_type": product(json!([])) }] },
            { "Procedures": [{ "source_name": "count", "params": { "elements": [] }, "return_type": {"U32": []}, "visibility": {"ClientCallable": []} }] },
            { "Schedules": [{ "source_name": {"none": []}, "table_name": "tick", "schedule_at_col": 1, "function_name": "addItem" }] },
            { "LifeCycleReducers": [{ "lifecycle_spec": {"Init": []}, "function_name": "onInit" }] },
            { "ExplicitNames": { "entries": [{ "Function": { "source_name": "count", "canonical_name": "count_all" } }] } },
        ]});
        let schema = Schema::from_json(&definition).expect("reads");
        let item = schema.table("bigItem").expect("by source name");
        assert_eq!((item.name.as_str(), item.public, item.primary_key.as_slice()), ("big_item", true, &[0][..]));
        assert_eq!(item.columns[1].name, "owner_name");
        assert_eq!(describe_type(&item.columns[1].ty), "string");
        assert_eq!(schema.table("tick").expect("there").schedules.as_deref(), Some("add_item"));
        let (add, is_procedure) = schema.function("add_item").expect("there");
        assert!(!is_procedure && !add.callable && add.returns.is_none());
        assert_eq!(schema.function("on_init").expect("there").0.lifecycle, Some("init"));
        let (count, is_procedure) = schema.function("count_all").expect("explicit name");
        assert!(is_procedure && count.returns.is_some());
        assert!(schema.function("nothing").is_none());
    }

    #[test]
    fn wrong_definitions_are_refused() {
        let mut deep = json!({"U8": []});
        for _ in 0..100 {
            deep = json!({ "Array": deep });
        }
        for wrong in [
            json!({}),
            json!([]),
            json!({"sections": [{"Tables": [{}]}]}),
            json!({"sections": [{"Typespace": {"types": [deep]}}]}),
            json!({"sections": [{"Tables": [{"source_name": "x", "product_type_ref": 7}]}]}),
        ] {
            Schema::from_json(&wrong).expect_err(&wrong.to_string());
        }
    }

    #[test]
    fn types_in_words() {
        let some = |ty| json!({ "Sum": { "variants": [field("some", ty), field("none", json!({"Product": {"elements": []}}))] } });
        let table = [
            (json!({"U32": []}), "u32"),
            (json!({"Array": {"U8": []}}), "bytes"),
            (json!({"Array": {"String": []}}), "array<string>"),
            (some(json!({"F64": []})), "option<f64>"),
            (json!({"Product": {"elements": [field("__identity__", json!({"U256": []}))]}}), "identity"),
            (
                json!({"Product": {"elements": [field("x", json!({"F32": []})), field("y", json!({"F32": []}))]}}),
                "(x: f32, y: f32)",
            ),
            (
                json!({"Sum": {"variants": [field("Red", json!({"Product": {"elements": []}})), field("Mix", json!({"U8": []}))]}}),
                "Red | Mix: u8",
            ),
        ];
        for (value, words) in table {
            assert_eq!(describe_type(&type_from_json(&value).expect("reads")), words, "{value}");
        }
    }
}
