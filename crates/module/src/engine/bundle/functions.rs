//! The functions of a bundle as its definition lists them, and the check of what they return.
//!
//! A definition with submodules is flattened as the SDK does it: a function's number counts on from the module before. Views of
//! senders and anonymous ones are counted apart there, while the host counts them together, in the order of the definition.

use bytes::Bytes;
use tine_types::bsatn::{DecodeError, Reader, validate};
use tine_types::http::HttpResponse;
use tine_types::{AlgebraicType, ModuleDef, ProductType, TypeError};

use super::super::Function;
use super::super::raw::Value;
use crate::call::{CallError, HandlerOutcome, ViewRows};

/// A function that takes arguments.
pub(super) struct Called {
    pub(super) name: Box<str>,
    pub(super) params: ProductType,
}

pub(super) struct Procedure {
    pub(super) called: Called,
    return_type: AlgebraicType,
}

pub(super) struct View {
    name: Box<str>,
    /// Its number among the views of its kind.
    pub(super) hook: u32,
    pub(super) is_anonymous: bool,
    /// An array of rows.
    rows: AlgebraicType,
}

/// See the module documentation. Types are without references.
#[derive(Default)]
pub(super) struct Functions {
    pub(super) reducers: Vec<Called>,
    pub(super) procedures: Vec<Procedure>,
    pub(super) views: Vec<View>,
    /// Names of the HTTP handlers, which only the root module has.
    pub(super) handlers: Vec<Box<str>>,
}

impl Functions {
    pub(super) fn of(def: &ModuleDef) -> Result<Functions, String> {
        let mut functions = Functions::default();
        for (prefix, module) in def.flatten() {
            functions.add(&prefix, module)?;
        }
        functions.handlers.extend(def.http_handlers.iter().map(|handler| handler.source_name.clone()));
        Ok(functions)
    }

    fn add(&mut self, prefix: &str, module: &ModuleDef) -> Result<(), String> {
        let unusable = |error: TypeError| format!("a function's type: {error}");
        let name = |source: &str| format!("{prefix}{source}").into_boxed_str();
        let types = &module.typespace;
        for reducer in &module.reducers {
            let params = types.inline_product(&reducer.params).map_err(unusable)?;
            self.reducers.push(Called { name: name(&reducer.source_name), params });
        }
        for procedure in &module.procedures {
            let params = types.inline_product(&procedure.params).map_err(unusable)?;
            let return_type = types.inline(&procedure.return_type).map_err(unusable)?;
            let called = Called { name: name(&procedure.source_name), params };
            self.procedures.push(Procedure { called, return_type });
        }
        let count =
            |views: &[View], is_anonymous| views.iter().filter(|view| view.is_anonymous == is_anonymous).count() as u32;
        let before = [count(&self.views, false), count(&self.views, true)];
        for view in &module.views {
            let row = view.row_type(types).map_err(unusable)?;
            let row = row.ok_or_else(|| format!("the view `{}` returns no rows", view.source_name))?;
            let rows = AlgebraicType::Array(Box::new(AlgebraicType::Product(row)));
            self.views.push(View {
                name: name(&view.source_name),
                hook: before[usize::from(view.is_anonymous)] + view.index,
                is_anonymous: view.is_anonymous,
                rows,
            });
        }
        Ok(())
    }

    #[cold]
    pub(super) fn bad_arguments(&self, function: Function, source: DecodeError) -> CallError {
        let name = match function {
            Function::Reducer(id) => &self.reducers[id as usize].name,
            Function::Procedure(id) => &self.procedures[id as usize].called.name,
        };
        CallError::BadArguments { function: name.to_string(), source }
    }
}

impl Procedure {
    pub(super) fn result(&self, returned: &Value<'_>) -> Result<Bytes, String> {
        let name = &self.called.name;
        let bytes = returned.with_bytes(Bytes::copy_from_slice);
        let bytes = bytes.ok_or_else(|| format!("the result of `{name}` is not a Uint8Array"))?;
        validate(&self.return_type, &bytes)
            .map_err(|error| format!("the result of `{name}` is not of its type: {error}"))?;
        Ok(bytes)
    }
}

const ROW_DATA: u8 = 0;
const RAW_SQL: u8 = 1;

impl View {
    /// Reads the header of a view's result, and checks what follows.
    pub(super) fn rows(&self, returned: &Value<'_>) -> Result<ViewRows, String> {
        let name = &self.name;
        let bytes = returned.with_bytes(Bytes::copy_from_slice);
        let bytes = bytes.ok_or_else(|| format!("the view `{name}` did not return {{ data: Uint8Array }}"))?;
        let malformed = |error: DecodeError| format!("the result of the view `{name}` is not of its type: {error}");
        match bytes.first() {
            Some(&ROW_DATA) => {
                validate(&self.rows, &bytes[1..]).map_err(malformed)?;
                Ok(ViewRows::Rows(bytes.slice(1..)))
            }
            Some(&RAW_SQL) => {
                let mut reader = Reader::new(&bytes[1..]);
                let query = reader.str().map_err(malformed)?.to_owned();
                reader.finish().map_err(malformed)?;
                Ok(ViewRows::Query(query))
            }
            _ => Err(format!("the view `{name}` returned neither rows nor a query")),
        }
    }
}

/// Takes a handler's `[response, body]` apart.
pub(super) fn handler_outcome(name: &str, returned: &Value<'_>) -> Result<HandlerOutcome, String> {
    let part = |index: u32| {
        let part = if returned.is_object() { returned.get_index(index) } else { return None };
        // A getter that throws is as good as nothing.
        let part = part.inspect_err(|_| drop(returned.cx().take_exception())).ok()?;
        part.with_bytes(Bytes::copy_from_slice)
    };
    let (Some(response), Some(body)) = (part(0), part(1)) else {
        return Err(format!("the handler `{name}` did not return two Uint8Arrays"));
    };
    HttpResponse::decode(&response).map_err(|error| format!("the response of `{name}` is malformed: {error}"))?;
    Ok(HandlerOutcome { response, body })
}
