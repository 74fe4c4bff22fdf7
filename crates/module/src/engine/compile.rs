//! From linked source to something that instances are made of.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tine_tables::DatabaseSchema;
use tine_types::ModuleDef;
use tine_types::module_def::ColumnDefault;

use super::boot;
use super::encode::encode;
use super::errors;
use super::isolate::{Loaded, QuickJsIsolate, load, load_error};
use super::plan::Plan;
use super::program::{CompiledFile, Program, split_frame};
use super::raw::{Bytecode, Cx, Exception, Runtime, Value};
use super::state::{Modules, State};
use super::{Artifact, Engine, Isolate};
use crate::check::check;
use crate::diagnostic::{Diagnostic, SourceLocation, excerpt};
use crate::module::{CompileError, Limits, LoadError};
use crate::source::bundle::SourceBundle;
use crate::source::link::LinkedProgram;
use crate::source::positions::Positions;

/// QuickJS-ng.
pub(crate) struct QuickJs;

/// A module compiled for QuickJS.
pub(crate) struct QuickJsArtifact {
    program: Arc<Program>,
}

impl Engine for QuickJs {
    type Artifact = QuickJsArtifact;

    fn compile(
        &self,
        bundle: &SourceBundle,
        linked: LinkedProgram,
        limits: &Limits,
    ) -> Result<(ModuleDef, QuickJsArtifact), CompileError> {
        let program = Arc::new(compile_files(bundle, linked, limits)?);
        let loaded = load(&program, limits, Arc::new(AtomicBool::new(false))).map_err(CompileError::Load)?;
        let def = describe(loaded)?;
        Ok((def, QuickJsArtifact { program }))
    }
}

impl Artifact for QuickJsArtifact {
    fn instantiate(
        &self,
        def: &Arc<ModuleDef>,
        schema: &DatabaseSchema,
        limits: &Limits,
        interrupt: Arc<AtomicBool>,
    ) -> Result<Box<dyn Isolate>, LoadError> {
        let loaded = load(&self.program, limits, interrupt)?;
        Ok(Box::new(QuickJsIsolate::new(loaded, def, schema)?))
    }

    fn code_bytes(&self) -> usize {
        self.program.bytecode_bytes()
    }
}

/// Compiles every file by itself; imports are linked when an instance loads.
fn compile_files(bundle: &SourceBundle, linked: LinkedProgram, limits: &Limits) -> Result<Program, CompileError> {
    let state = State::new(limits.memory_bytes, Modules::Stubs, Arc::new(AtomicBool::new(false)));
    let out_of_memory = || CompileError::Load(LoadError::OutOfMemory { location: None });
    let mut runtime = Runtime::new(limits.stack_bytes, state).ok_or_else(out_of_memory)?;
    let cx = runtime.enter();
    cx.enable_modules();
    let mut files = HashMap::new();
    for (path, file) in linked.files {
        let source = &bundle.files[&path];
        let bytes = cx.compile_module(&path, &file.code).map_err(|Exception| {
            let (error, _) = cx.take_exception();
            if cx.state().heap.has_refused() {
                out_of_memory()
            } else {
                CompileError::Syntax(syntax_error(&error, &path, source, &file.positions))
            }
        })?;
        let compiled = CompiledFile {
            bytecode: Bytecode::trusted(bytes),
            imports: file.imports,
            positions: file.positions,
            source: source.clone(),
        };
        files.insert(path, compiled);
    }
    Ok(Program { entry: linked.entry, files, sdk_names: linked.sdk_names, map: None })
}

/// A syntax error that only the engine sees, such as a feature it does not have.
pub(super) fn syntax_error(error: &Value<'_>, path: &str, source: &str, positions: &Positions) -> Diagnostic {
    let text = |name| error.get_named(name).and_then(|value| value.to_text()).unwrap_or_default();
    let mut diagnostic = Diagnostic::bare(format!("SyntaxError: {}", text("message")));
    let stack = text("stack");
    let place = stack.lines().find_map(split_frame).and_then(|(_, place)| {
        let mut parts = place.rsplitn(3, ':');
        let column: u32 = parts.next()?.parse().ok()?;
        Some((parts.next()?.parse::<u32>().ok()?, column))
    });
    if let Some((line, column)) = place {
        let (line, column) = positions.source_of(line, column);
        diagnostic.excerpt = excerpt(source, line, column);
        diagnostic.location = Some(SourceLocation { file: path.to_owned(), line, column });
    }
    diagnostic
}

/// Reads the definition of a loaded module.
fn describe(loaded: Loaded) -> Result<ModuleDef, CompileError> {
    let Loaded { mut runtime, program, registered } = loaded;
    let cx = runtime.enter();
    let failed = |Exception| CompileError::Load(load_error(errors::take(cx, &program)));
    let described = boot::run_describe(cx, &cx.local(registered)).map_err(failed)?;
    let bytes = described.get_named("bytes").map_err(failed)?;
    let bytes = bytes.with_bytes(<[u8]>::to_vec).unwrap_or_default();
    let mut def = ModuleDef::decode(&bytes).map_err(|error| CompileError::Definition(errors::with_sources(&error)))?;
    let defaults = described.get_named("defaults").map_err(failed)?;
    for index in 0..defaults.length().map_err(failed)? {
        add_default(cx, &mut def, &program, &defaults.get_index(index as u32).map_err(failed)?)?;
    }
    check(&def)?;
    Ok(def)
}

/// The module at a place in the order of [`ModuleDef::flatten`].
fn module_at<'a>(def: &'a mut ModuleDef, place: &mut usize) -> Option<&'a mut ModuleDef> {
    if *place == 0 {
        return Some(def);
    }
    *place -= 1;
    def.submodules.iter_mut().find_map(|submodule| module_at(&mut submodule.module, place))
}

/// Encodes one default value and adds it to its table.
fn add_default(cx: Cx<'_>, def: &mut ModuleDef, program: &Program, default: &Value<'_>) -> Result<(), CompileError> {
    let failed = |Exception| CompileError::Load(load_error(errors::take(cx, program)));
    let number = |name| default.get_named(name).and_then(|value| value.to_number()).map(|number| number as usize);
    let mut place = number("moduleIndex").map_err(failed)?;
    let def = module_at(def, &mut place).expect("the SDK describes modules in their order");
    let (table, column) = (number("tableIndex").map_err(failed)?, number("columnId").map_err(failed)?);
    let definition = |problem: String| CompileError::Definition(problem);
    let table_def =
        def.tables.get_mut(table).ok_or_else(|| definition(format!("a default value for table {table}")))?;
    let row = def.typespace.get(table_def.product_type_ref).and_then(|ty| ty.as_product());
    let element = row.and_then(|row| row.elements.get(column));
    let element = element.ok_or_else(|| definition(format!("a default value for column {column}")))?;
    let ty = def.typespace.inline(&element.ty).map_err(|error| definition(error.to_string()))?;
    let plan = Plan::new(cx, &ty).map_err(failed)?;
    let mut bytes = Vec::new();
    let what =
        format!("the default of column `{}` of table `{}`", element.name().unwrap_or_default(), table_def.source_name);
    let value = default.get_named("value").map_err(failed)?;
    encode(&plan, &value, &mut bytes).map_err(|error| failed(error.throw(cx, &what)))?;
    table_def.default_values.push(ColumnDefault { col_id: column as u16, value: bytes.into() });
    Ok(())
}
