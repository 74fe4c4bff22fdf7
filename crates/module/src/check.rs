//! What a definition must satisfy beyond its encoding, so that mistakes show when the module is compiled and not when a client
//! comes upon them. Tables, schedules and lifecycle functions are checked by making a schema of them, as publishing will.

use std::collections::HashSet;

use tine_tables::DatabaseSchema;
use tine_types::ModuleDef;
use tine_types::module_def::{HttpRouteDef, MethodOrAny};

use crate::engine::with_sources;
use crate::module::CompileError;

/// The longest path of a route.
const ROUTE_PATH_BYTES_MAX: usize = 1024;

/// Checks a definition.
pub(crate) fn check(def: &ModuleDef) -> Result<(), CompileError> {
    let mut next = 1 << 10;
    let mut allocate = |count: u32| {
        next += count;
        Ok(next - count)
    };
    DatabaseSchema::from_module_def(def, None, &mut allocate)
        .map_err(|error| CompileError::Definition(with_sources(&error)))?;
    let mut relations = HashSet::new();
    for (prefix, module) in def.flatten() {
        check_functions(module).and_then(|()| check_views(&prefix, module, &mut relations)).map_err(|problem| {
            let place =
                if prefix.is_empty() { String::new() } else { format!(" (in `{}`)", prefix.trim_end_matches('.')) };
            CompileError::Definition(format!("{problem}{place}"))
        })?;
    }
    check_routes(def).map_err(CompileError::Definition)
}

fn check_functions(def: &ModuleDef) -> Result<(), String> {
    let params = def.reducers.iter().map(|reducer| &reducer.params);
    for product in params.chain(def.procedures.iter().map(|procedure| &procedure.params)) {
        def.typespace.inline_product(product).map_err(|error| error.to_string())?;
    }
    for procedure in &def.procedures {
        def.typespace.inline(&procedure.return_type).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Views are read like tables, so they share the tables' names; `relations` collects them over all modules.
fn check_views(prefix: &str, def: &ModuleDef, relations: &mut HashSet<String>) -> Result<(), String> {
    for table in &def.tables {
        relations.insert(format!("{prefix}{}", def.canonical_table_name(&table.source_name)));
        relations.insert(format!("{prefix}{}", table.source_name));
    }
    let mut numbers = HashSet::new();
    for view in &def.views {
        let name = &view.source_name;
        let canonical = def.canonical_function_name(name);
        let row = view.row_type(&def.typespace).map_err(|error| format!("the view `{name}`: {error}"))?;
        let row = row.ok_or_else(|| format!("the view `{name}` must return an array or an option of rows"))?;
        if row.elements.iter().any(|element| element.name.is_none()) {
            return Err(format!("the view `{name}` returns rows with a column that has no name"));
        }
        if !view.params.elements.is_empty() {
            return Err(format!("the view `{name}` has parameters, which a query cannot give"));
        }
        if !numbers.insert((view.is_anonymous, view.index)) {
            return Err(format!("the view `{name}` has the number of another one"));
        }
        for known in HashSet::from([name.to_string(), canonical]) {
            if !relations.insert(format!("{prefix}{known}")) {
                return Err(format!("the view `{name}` has the name of a table or of another view"));
            }
        }
    }
    for key in &def.view_primary_keys {
        let view = def.views.iter().find(|view| view.source_name == key.view_source_name);
        let view =
            view.ok_or_else(|| format!("there is no view `{}` that could have a primary key", key.view_source_name))?;
        let row = view.row_type(&def.typespace).ok().flatten();
        let has = |column: &str| {
            row.as_ref().is_some_and(|row| row.elements.iter().any(|element| element.name.as_deref() == Some(column)))
        };
        if key.columns.len() > 1 || !key.columns.iter().all(|column| has(column)) {
            return Err(format!("the primary key of the view `{}` must be one of its columns", key.view_source_name));
        }
    }
    Ok(())
}

/// Only the root module answers HTTP requests; handlers and routes of a library are the library's own affair.
fn check_routes(def: &ModuleDef) -> Result<(), String> {
    for (position, route) in def.http_routes.iter().enumerate() {
        let path = &route.path;
        if !def.http_handlers.iter().any(|handler| handler.source_name == route.handler_function) {
            return Err(format!("the route `{path}` leads to `{}`, which is no HTTP handler", route.handler_function));
        }
        let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_~/".contains(&byte);
        let begins_well = path.is_empty() || path.starts_with('/');
        if !begins_well || path.len() > ROUTE_PATH_BYTES_MAX || !path.bytes().all(is_allowed) {
            return Err(format!(
                "`{path}` is not the path of a route: it begins with / and has a-z, 0-9 and -_~/ only"
            ));
        }
        if def.http_routes[..position].iter().any(|other| overlap(route, other)) {
            return Err(format!("there are two routes for `{path}`"));
        }
    }
    Ok(())
}

fn overlap(one: &HttpRouteDef, other: &HttpRouteDef) -> bool {
    let any = |route: &HttpRouteDef| matches!(route.method, MethodOrAny::Any);
    one.path == other.path && (any(one) || any(other) || one.method == other.method)
}
