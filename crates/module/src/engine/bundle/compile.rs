//! From the text of a bundle to something that instances are made of.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tine_tables::DatabaseSchema;
use tine_types::ModuleDef;

use super::super::compile::syntax_error;
use super::super::errors;
use super::super::program::{CompiledFile, Program};
use super::super::raw::{Bytecode, Exception, Runtime};
use super::super::state::{Modules, State};
use super::super::{Artifact, Isolate};
use super::SYS_PREFIX;
use super::boot::{engine_fingerprint, exports};
use super::isolate::{self, BundleIsolate};
use crate::cache::{CodeCache, Entry};
use crate::check::check;
use crate::diagnostic::Diagnostic;
use crate::module::{CompileError, Limits, LoadError};
use crate::source::bundle::SourceBundle;
use crate::source::map::{self, SourceMap};
use crate::source::positions::Positions;
use crate::source::strip;

/// A bundle compiled for the engine.
pub(crate) struct BundleArtifact {
    program: Arc<Program>,
}

impl Artifact for BundleArtifact {
    fn instantiate(
        &self,
        def: &Arc<ModuleDef>,
        _: &DatabaseSchema,
        limits: &Limits,
        interrupt: Arc<AtomicBool>,
    ) -> Result<Box<dyn Isolate>, LoadError> {
        // The bundle asks for its tables by name in its first call; that is when it learns of one that is missing.
        let runtime = isolate::load(&self.program, limits, interrupt)?;
        Ok(Box::new(BundleIsolate::new(runtime, Arc::clone(&self.program), def)?))
    }

    fn code_bytes(&self) -> usize {
        self.program.bytecode_bytes()
    }
}

/// Whether a program may be a bundle: one file of JavaScript that names a module of the ABI. Only its imports tell for sure.
pub(crate) fn is_candidate(bundle: &SourceBundle) -> bool {
    let is_script = bundle.entry.ends_with(".js") || bundle.entry.ends_with(".mjs");
    is_script && bundle.files.len() == 1 && bundle.files[&bundle.entry].contains(SYS_PREFIX)
}

/// Compiles a candidate, or takes it from the cache. `None`: it does not import the module ABI, so it is no bundle.
pub(crate) fn compile(
    bundle: &SourceBundle,
    hash: &[u8; 32],
    limits: &Limits,
    cache: Option<&CodeCache>,
) -> Result<Option<(ModuleDef, BundleArtifact)>, CompileError> {
    let text = &bundle.files[&bundle.entry];
    let (code_bytes, url) = map::split(text);
    let program = |bytecode: Vec<u8>| {
        let source: Arc<str> = text.as_str().into();
        let file = CompiledFile {
            bytecode: Bytecode::trusted(bytecode),
            imports: BTreeMap::new(),
            positions: Positions::Same,
            source: text[..code_bytes].to_owned(),
        };
        let files = HashMap::from([(bundle.entry.clone(), file)]);
        let map = url.map(|url| SourceMap::new(source, url));
        Arc::new(Program { entry: bundle.entry.clone(), files, sdk_names: Vec::new(), map })
    };
    if let Some(entry) = cache.and_then(|cache| cache.load(hash, engine_fingerprint()))
        && let Ok(def) = ModuleDef::decode(&entry.def)
    {
        return Ok(Some((def, BundleArtifact { program: program(entry.bytecode) })));
    }
    let code = &text[..code_bytes];
    if !check_imports(&bundle.entry, code)? {
        return Ok(None);
    }
    let bytecode = compile_code(&bundle.entry, code, limits)?;
    let program = program(bytecode);
    let def = describe(&program, limits)?;
    if let Some(cache) = cache {
        let bytecode = program.files[&program.entry].bytecode.bytes().to_vec();
        cache.store(hash, engine_fingerprint(), &Entry { def: def.encode(), bytecode });
    }
    Ok(Some((def, BundleArtifact { program })))
}

/// Checks what a bundle imports. `false` if nothing of it is of the module ABI.
fn check_imports(file: &str, code: &str) -> Result<bool, CompileError> {
    let stripped = strip::strip(file, code).map_err(CompileError::Syntax)?;
    if !stripped.imports.iter().any(|import| import.specifier.starts_with(SYS_PREFIX)) {
        return Ok(false);
    }
    for import in &stripped.imports {
        let refuse = |message: String, offset: usize| {
            Err(CompileError::Syntax(Diagnostic::at_offset(message, file, code, offset)))
        };
        let specifier = &import.specifier;
        let Some(names) = exports(specifier) else {
            let message = match specifier.strip_prefix(SYS_PREFIX) {
                Some(version) => format!(
                    "the bundle needs version {version} of the module ABI, this server has 2.0 and 2.1 (of npm spacetimedb 2.x)"
                ),
                None => format!("cannot find \"{specifier}\": a bundle imports nothing but {SYS_PREFIX}2.0 and 2.1"),
            };
            return refuse(message, import.offset);
        };
        if let Some((name, offset)) = import.names.iter().find(|(name, _)| !names.contains(&name.as_str())) {
            return refuse(format!("\"{specifier}\" does not export `{name}`"), *offset);
        }
    }
    Ok(true)
}

fn compile_code(file: &str, code: &str, limits: &Limits) -> Result<Vec<u8>, CompileError> {
    let state = State::new(limits.memory_bytes, Modules::Stubs, Arc::new(AtomicBool::new(false)));
    let out_of_memory = || CompileError::Load(LoadError::OutOfMemory { location: None });
    let mut runtime = Runtime::new(limits.stack_bytes, state).ok_or_else(out_of_memory)?;
    let cx = runtime.enter();
    cx.enable_modules();
    cx.compile_module(file, code).map_err(|Exception| {
        let (error, _) = cx.take_exception();
        if cx.state().heap.has_refused() {
            out_of_memory()
        } else {
            CompileError::Syntax(syntax_error(&error, file, code, &Positions::Same))
        }
    })
}

/// Evaluates a bundle once and reads its definition.
fn describe(program: &Arc<Program>, limits: &Limits) -> Result<ModuleDef, CompileError> {
    let mut runtime = isolate::load(program, limits, Arc::new(AtomicBool::new(false))).map_err(CompileError::Load)?;
    let cx = runtime.enter();
    let bytes = isolate::describe(cx, program).map_err(CompileError::Load)?;
    let def = ModuleDef::decode(&bytes).map_err(|error| CompileError::Definition(errors::with_sources(&error)))?;
    check(&def)?;
    Ok(def)
}
