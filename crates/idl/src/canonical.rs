//! The canonical form of a schema and its hash.
//!
//! Two schemas have the same form exactly when their messages are the same bytes: comments, blanks and
//! what types are called do not count, names on the wire and shapes do. The form is a text with one
//! line per shared shape and per command, sorted:
//!
//! ```text
//! tine-idl 1
//! error EchoErrorResponse {message:string}
//! request EchoNested {inner:#5f0c...} -> EchoNestedResponse {inner:#5f0c...}
//! request EchoWatch {after:u64} -> stream EchoWatchResponse {at:u64}
//! shape #5f0c... {values:bytes[],flag:bool?}
//! ```
//!
//! A shape is named by the hash of its own line, so that the text stays as long as the schema however
//! often structures contain one another. Fields keep their order, because encoders write them in it.

use std::collections::{BTreeSet, HashMap};

use sha2::{Digest, Sha256};

use crate::{Field, Schema, Type};

/// Names of shared structures to names of their shapes.
type Shapes<'a> = HashMap<&'a str, String>;

impl Schema {
    /// The canonical form.
    pub fn canonical_text(&self) -> String {
        let mut shapes = Shapes::new();
        let mut lines = BTreeSet::new();
        for structure in &self.types {
            let fields = self.fields_text(&structure.fields, &shapes);
            let shape = format!("#{}", hex(&Sha256::digest(fields.as_bytes())));
            lines.insert(format!("shape {shape} {fields}"));
            shapes.insert(&structure.name, shape);
        }
        for command in &self.commands {
            let stream = if command.is_stream { "stream " } else { "" };
            let request = self.fields_text(&command.request.fields, &shapes);
            let response = self.fields_text(&self.response_structure(command).fields, &shapes);
            let response = format!("{stream}{} {response}", command.response.name());
            lines.insert(format!("request {} {request} -> {response}", command.request.name));
        }
        let mut text = format!("tine-idl 1\nerror {} {{message:string}}\n", self.error_name());
        for line in lines {
            text.push_str(&line);
            text.push('\n');
        }
        text
    }

    /// SHA-256 of the canonical form: what clients and servers compare when they meet.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.canonical_text().as_bytes()).into()
    }

    /// The hash in hexadecimal digits.
    pub fn hash_hex(&self) -> String {
        hex(&self.hash())
    }

    fn fields_text(&self, fields: &[Field], shapes: &Shapes<'_>) -> String {
        let fields = fields.iter().map(|field| format!("{}:{}", field.name, self.shape_text(&field.ty, shapes)));
        format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
    }

    fn shape_text(&self, ty: &Type, shapes: &Shapes<'_>) -> String {
        match ty {
            Type::Primitive(primitive) => primitive.name().to_owned(),
            Type::Alias(index) => self.aliases[*index].target.name().to_owned(),
            Type::Structure(name) => shapes[name.as_str()].clone(),
            Type::Optional(inner) => format!("{}?", self.shape_text(inner, shapes)),
            Type::List(inner) => format!("{}[]", self.shape_text(inner, shapes)),
            Type::FixedList(inner, length) => format!("{}[{length}]", self.shape_text(inner, shapes)),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
