//! What generated code is about: the tables, functions and types of a module that clients can reach, under the names they use.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use tine_types::module_def::{ConstraintData, ModuleDef, TableAccess, TableDef, Visibility, pascal_case};
use tine_types::{AlgebraicType, ProductType};

/// See the module documentation.
pub struct Model {
    pub tables: Vec<Table>,
    pub reducers: Vec<Function>,
    pub procedures: Vec<Function>,
    /// Types with a name; each comes after those it mentions.
    pub types: Vec<NamedType>,
}

/// A table or a view.
pub struct Table {
    /// Canonical name, with the namespace of its submodule.
    pub name: String,
    /// What code calls it.
    pub accessor: String,
    pub columns: Vec<Column>,
    /// Indexes that the columns do not tell.
    pub indexes: Vec<Index>,
    pub is_event: bool,
}

pub struct Column {
    /// Canonical name.
    pub name: String,
    /// What code calls it.
    pub accessor: String,
    pub ty: Type,
    pub is_primary_key: bool,
    pub is_unique: bool,
    /// Whether an index is on this column alone.
    pub is_indexed: bool,
}

pub struct Index {
    pub name: String,
    pub accessor: String,
    /// What code calls the columns.
    pub columns: Vec<String>,
}

pub struct Function {
    /// Canonical name.
    pub name: String,
    pub parameters: Vec<Field>,
    /// What a procedure returns.
    pub returns: Option<Type>,
}

/// A parameter or the field of a product.
pub struct Field {
    /// Name in the source.
    pub name: String,
    /// What code calls it.
    pub accessor: String,
    pub ty: Type,
}

pub struct NamedType {
    pub name: String,
    pub shape: Shape,
}

pub enum Shape {
    Product(Vec<Field>),
    Sum(Vec<Field>),
}

/// A type as code says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// A name of the SDK's type builders that takes nothing: `u32`, `identity`.
    Plain(&'static str),
    Option(Box<Type>),
    Array(Box<Type>),
    Result(Box<Type>, Box<Type>),
    /// A named type of the module.
    Named(String),
}

impl Model {
    /// Reads a definition with its submodules.
    ///
    /// # Errors
    /// Types that lead back to themselves or do not exist, in words.
    pub fn new(definition: &ModuleDef, include_private: bool) -> Result<Model, String> {
        let mut model = Model { tables: Vec::new(), reducers: Vec::new(), procedures: Vec::new(), types: Vec::new() };
        model.add(definition, "", include_private)?;
        Ok(model)
    }

    fn add(&mut self, definition: &ModuleDef, prefix: &str, include_private: bool) -> Result<(), String> {
        let mut types = Types { definition, prefix, names: names_of(definition, prefix), open: Vec::new() };
        for table in &definition.tables {
            if include_private || table.table_access == TableAccess::Public {
                let table = self.table(definition, table, prefix, &mut types)?;
                self.tables.push(table);
            }
        }
        for view in definition.views.iter().filter(|view| include_private || view.is_public) {
            let key = definition.view_primary_keys.iter().find(|key| key.view_source_name == view.source_name);
            let row = row_of(definition, &view.return_type)
                .ok_or_else(|| format!("the view `{}` does not return rows", view.source_name))?;
            let mut columns = self.columns(&row, &mut types, definition)?;
            for column in &mut columns {
                let is_key = |name: &str| name == column.name || name == column.accessor;
                column.is_primary_key = key.is_some_and(|key| key.columns.iter().any(|name| is_key(name)));
            }
            let name = format!("{prefix}{}", definition.canonical_function_name(&view.source_name));
            let accessor = camel(&format!("{prefix}{}", view.source_name));
            self.tables.push(Table { name, accessor, columns, indexes: Vec::new(), is_event: false });
        }
        let is_hook = |name: &str| definition.lifecycle.iter().any(|hook| &*hook.function_name == name);
        let is_scheduled = |name: &str| definition.schedules.iter().any(|entry| &*entry.function_name == name);
        for reducer in &definition.reducers {
            let name = &reducer.source_name;
            if reducer.visibility == Visibility::ClientCallable && !is_hook(name) && !is_scheduled(name) {
                let parameters = self.fields(&reducer.params, &mut types)?;
                let name = format!("{prefix}{}", definition.canonical_function_name(name));
                self.reducers.push(Function { name, parameters, returns: None });
            }
        }
        for procedure in &definition.procedures {
            let name = &procedure.source_name;
            if procedure.visibility == Visibility::ClientCallable && !is_scheduled(name) {
                let parameters = self.fields(&procedure.params, &mut types)?;
                let returns = Some(self.ty(&procedure.return_type, &mut types)?);
                let name = format!("{prefix}{}", definition.canonical_function_name(name));
                self.procedures.push(Function { name, parameters, returns });
            }
        }
        for submodule in &definition.submodules {
            self.add(&submodule.module, &format!("{prefix}{}.", submodule.namespace), include_private)?;
        }
        Ok(())
    }

    fn table(
        &mut self,
        definition: &ModuleDef,
        table: &TableDef,
        prefix: &str,
        types: &mut Types<'_>,
    ) -> Result<Table, String> {
        let row = definition.typespace.get(table.product_type_ref).and_then(AlgebraicType::as_product);
        let row = row.ok_or_else(|| format!("the rows of `{}` are no product", table.source_name))?.clone();
        let mut columns = self.columns(&row, types, definition)?;
        let unique: Vec<&[u16]> = table
            .constraints
            .iter()
            .map(|constraint| match &constraint.data {
                ConstraintData::Unique(unique) => &*unique.columns,
            })
            .collect();
        for (column, position) in columns.iter_mut().zip(0u16..) {
            column.is_primary_key = table.primary_key == [position];
            column.is_unique = !column.is_primary_key && unique.contains(&&[position][..]);
        }
        let mut indexes = Vec::new();
        for index in &table.indexes {
            let positions = index.algorithm.columns();
            let accessors = positions.iter().map(|position| columns.get(usize::from(*position)));
            let accessors = accessors.map(|column| column.map(|column| column.accessor.clone()));
            let accessors: Vec<String> = accessors
                .collect::<Option<_>>()
                .ok_or_else(|| format!("an index of `{}` is on a column that is not there", table.source_name))?;
            let accessor = index.accessor_name.as_deref().map_or_else(|| camel(&accessors.join("_")), camel);
            let own = &mut columns[usize::from(positions[0])];
            let is_told = own.is_primary_key || own.is_unique || own.ty.takes_index();
            if accessors.len() == 1 && accessor == own.accessor && is_told {
                own.is_indexed = true;
                continue;
            }
            indexes.push(Index { name: definition.canonical_index_name(table, index), accessor, columns: accessors });
        }
        let name = format!("{prefix}{}", definition.canonical_table_name(&table.source_name));
        let accessor = camel(&format!("{prefix}{}", table.source_name));
        Ok(Table { name, accessor, columns, indexes, is_event: table.is_event })
    }

    fn columns(
        &mut self,
        row: &ProductType,
        types: &mut Types<'_>,
        definition: &ModuleDef,
    ) -> Result<Vec<Column>, String> {
        let fields = self.fields(row, types)?;
        let column = |field: Field| Column {
            name: definition.canonical_column_name(&field.name),
            accessor: field.accessor,
            ty: field.ty,
            is_primary_key: false,
            is_unique: false,
            is_indexed: false,
        };
        Ok(fields.into_iter().map(column).collect())
    }

    fn fields(&mut self, product: &ProductType, types: &mut Types<'_>) -> Result<Vec<Field>, String> {
        let mut fields = Vec::with_capacity(product.elements.len());
        for (position, element) in product.elements.iter().enumerate() {
            let name = element.name().map_or_else(|| format!("field_{position}"), str::to_owned);
            fields.push(Field { accessor: camel(&name), name, ty: self.ty(&element.ty, types)? });
        }
        Ok(fields)
    }

    fn ty(&mut self, ty: &AlgebraicType, types: &mut Types<'_>) -> Result<Type, String> {
        if let Some(plain) = plain(ty) {
            return Ok(Type::Plain(plain));
        }
        match ty {
            AlgebraicType::Array(item) => Ok(Type::Array(Box::new(self.ty(item, types)?))),
            AlgebraicType::Sum(sum) if sum.is_option() => {
                let some = sum.as_option().expect("it was just asked");
                Ok(Type::Option(Box::new(self.ty(some, types)?)))
            }
            AlgebraicType::Sum(_) if ty.as_result().is_some() => {
                let (ok, err) = ty.as_result().expect("it was just asked");
                Ok(Type::Result(Box::new(self.ty(ok, types)?), Box::new(self.ty(err, types)?)))
            }
            AlgebraicType::Ref(reference) => {
                let target = types.definition.typespace.get(*reference);
                let target = target.ok_or_else(|| format!("there is no type {}", reference.0))?.clone();
                let has_name = match &target {
                    AlgebraicType::Product(_) => plain(&target).is_none(),
                    AlgebraicType::Sum(sum) => {
                        plain(&target).is_none() && !sum.is_option() && target.as_result().is_none()
                    }
                    _ => false,
                };
                if !has_name {
                    return self.ty(&target, types);
                }
                let fallback = || format!("{}Type{}", pascal_case(types.prefix), reference.0);
                let name = types.names.get(&reference.0).cloned().unwrap_or_else(fallback);
                self.named(name, &target, types)
            }
            // A product or sum without a place of its own: named after its content, so that equal ones are one.
            AlgebraicType::Product(_) | AlgebraicType::Sum(_) => {
                let mut name = String::from("Anonymous");
                write!(name, "{:08x}", digest(ty)).expect("writing to a string does not fail");
                self.named(name, ty, types)
            }
            _ => Err(format!("the type {ty:?} has no form in TypeScript")),
        }
    }

    fn named(&mut self, name: String, ty: &AlgebraicType, types: &mut Types<'_>) -> Result<Type, String> {
        if self.types.iter().any(|known| known.name == name) {
            return Ok(Type::Named(name));
        }
        if types.open.contains(&name) {
            return Err(format!("the type `{name}` contains itself"));
        }
        types.open.push(name.clone());
        let shape = match ty {
            AlgebraicType::Product(product) => Shape::Product(self.fields(product, types)?),
            AlgebraicType::Sum(sum) => {
                let mut variants = Vec::with_capacity(sum.variants.len());
                for (position, variant) in sum.variants.iter().enumerate() {
                    let name = variant.name().map_or_else(|| format!("Variant{position}"), str::to_owned);
                    variants.push(Field { accessor: name.clone(), name, ty: self.ty(&variant.ty, types)? });
                }
                Shape::Sum(variants)
            }
            _ => unreachable!("only products and sums have names"),
        };
        types.open.pop();
        self.types.push(NamedType { name: name.clone(), shape });
        Ok(Type::Named(name))
    }
}

/// The types of one module while it is read.
struct Types<'d> {
    definition: &'d ModuleDef,
    prefix: &'d str,
    names: BTreeMap<u32, String>,
    /// Names of the types being read, outermost first.
    open: Vec<String>,
}

impl Type {
    /// Whether a column of the type can carry an index in the SDK's notation.
    fn takes_index(&self) -> bool {
        matches!(self, Type::Plain(name) if !matches!(*name, "unit" | "byteArray" | "scheduleAt" | "f32" | "f64"))
    }
}

/// Names of the types that have one, different for each.
fn names_of(definition: &ModuleDef, prefix: &str) -> BTreeMap<u32, String> {
    let mut names = BTreeMap::new();
    for ty in &definition.types {
        let scope = ty.source_name.scope.iter().map(|part| pascal_case(part));
        let name: String = std::iter::once(pascal_case(prefix))
            .chain(scope)
            .chain([definition.canonical_type_name(&ty.source_name.source_name)])
            .collect();
        let name = identifier(&name);
        let is_taken = names.values().any(|known| *known == name);
        let name = if is_taken { format!("{name}{}", ty.ty.0) } else { name };
        names.entry(ty.ty.0).or_insert(name);
    }
    names
}

/// The builder's name of a type that needs no other.
fn plain(ty: &AlgebraicType) -> Option<&'static str> {
    Some(match ty {
        _ if ty.is_identity() => "identity",
        _ if ty.is_connection_id() => "connectionId",
        _ if ty.is_timestamp() => "timestamp",
        _ if ty.is_time_duration() => "timeDuration",
        _ if ty.is_uuid() => "uuid",
        _ if ty.is_schedule_at() => "scheduleAt",
        _ if ty.is_unit() => "unit",
        AlgebraicType::Array(item) if **item == AlgebraicType::U8 => "byteArray",
        AlgebraicType::Bool => "bool",
        AlgebraicType::String => "string",
        AlgebraicType::I8 => "i8",
        AlgebraicType::U8 => "u8",
        AlgebraicType::I16 => "i16",
        AlgebraicType::U16 => "u16",
        AlgebraicType::I32 => "i32",
        AlgebraicType::U32 => "u32",
        AlgebraicType::I64 => "i64",
        AlgebraicType::U64 => "u64",
        AlgebraicType::I128 => "i128",
        AlgebraicType::U128 => "u128",
        AlgebraicType::I256 => "i256",
        AlgebraicType::U256 => "u256",
        AlgebraicType::F32 => "f32",
        AlgebraicType::F64 => "f64",
        _ => return None,
    })
}

/// The row type of a view that returns rows, an array or option of them, or a query over them.
fn row_of(definition: &ModuleDef, ty: &AlgebraicType) -> Option<ProductType> {
    let inlined = |ty: &AlgebraicType| match ty {
        AlgebraicType::Ref(reference) => definition.typespace.get(*reference).cloned(),
        other => Some(other.clone()),
    };
    let item = match inlined(ty)? {
        AlgebraicType::Array(item) => inlined(&item)?,
        AlgebraicType::Sum(sum) => inlined(sum.as_option()?)?,
        // A view in SQL form names its row type in a product of one field.
        AlgebraicType::Product(query) if query.elements.len() == 1 => inlined(&query.elements[0].ty)?,
        _ => return None,
    };
    match item {
        AlgebraicType::Product(row) => Some(row),
        _ => None,
    }
}

fn digest(ty: &AlgebraicType) -> u32 {
    let mut bytes = Vec::new();
    tine_types::bsatn::encode_type(ty, &mut bytes);
    let hash = blake3::hash(&bytes);
    u32::from_le_bytes(hash.as_bytes()[..4].try_into().expect("a hash is longer"))
}

/// The SDK's own rule for names in code: separators go, and the letter after each is large.
pub fn camel(name: &str) -> String {
    let mut camel = String::with_capacity(name.len());
    let mut after_separator = false;
    for letter in name.chars() {
        if matches!(letter, '_' | '-' | '.') {
            after_separator = true;
        } else if std::mem::take(&mut after_separator) && !camel.is_empty() {
            camel.extend(letter.to_uppercase());
        } else {
            camel.push(letter);
        }
    }
    let mut letters = camel.chars();
    let first: String = letters.next().into_iter().flat_map(char::to_lowercase).collect();
    first + letters.as_str()
}

/// A name that TypeScript takes as an identifier.
fn identifier(name: &str) -> String {
    let mut text: String = name.chars().map(|c| if c.is_alphanumeric() || c == '_' { c } else { '_' }).collect();
    if !text.starts_with(|c: char| c.is_alphabetic() || c == '_') {
        text.insert(0, '_');
    }
    text
}

/// A property name, quoted where it must be.
pub fn property(name: &str) -> String {
    let is_plain = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '$')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '$')
        && name != "__proto__";
    if is_plain { name.to_owned() } else { text(name) }
}

/// A string literal.
pub fn text(value: &str) -> String {
    // Every JSON string is one of TypeScript's.
    serde_json::Value::from(value).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_code() {
        let cases = [
            ("chat_message", "chatMessage"),
            ("chatMessage", "chatMessage"),
            ("Player", "player"),
            ("a__b-c", "aBC"),
            ("u_32", "u32"),
            ("lib.Thing", "libThing"),
            ("_hidden", "hidden"),
        ];
        for (name, expected) in cases {
            assert_eq!(camel(name), expected, "{name}");
        }
        assert_eq!(property("plain_1"), "plain_1");
        assert_eq!(property("1st"), "\"1st\"");
        assert_eq!(property("with \"quotes\""), "\"with \\\"quotes\\\"\"");
        assert_eq!(identifier("1 st"), "_1_st");
    }
}
