//! A module that runs on a fork: compiled code, its schema, and where its functions are.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use parking_lot::Mutex;
use tine_module::{CodeCache, CompiledModule, Limits, ProcedureIndex, ReducerIndex, SourceBundle};
use tine_query::{Catalog, RowRules};
use tine_tables::DatabaseSchema;
use tine_types::AlgebraicType;
use tine_types::ProductType;
use tine_types::module_def::{LifecycleEvent, ModuleDef, Visibility};

use crate::HostError;
use crate::instances::SpareKey;
use crate::metrics::Metrics;

/// One function of a module, ready to be called.
pub(crate) struct Function<Index> {
    pub index: Index,
    pub name: Arc<str>,
    /// Without references.
    pub parameters: ProductType,
    /// Without references; unit for reducers.
    pub return_type: AlgebraicType,
    /// Whether clients may call it: not for lifecycle, scheduled and private functions.
    pub callable: bool,
}

/// A compiled module together with the schema of the version it runs on. Immutable; replaced whole by a publish.
pub struct ActiveModule {
    pub(crate) compiled: Arc<CompiledModule>,
    pub(crate) schema: Arc<DatabaseSchema>,
    /// Which rows others than the owner see.
    pub(crate) rules: RowRules,
    pub(crate) reducers: HashMap<Box<str>, Arc<Function<ReducerIndex>>>,
    pub(crate) procedures: HashMap<Box<str>, Arc<Function<ProcedureIndex>>>,
    pub(crate) init: Option<Arc<Function<ReducerIndex>>>,
    pub(crate) connected: Option<Arc<Function<ReducerIndex>>>,
    pub(crate) disconnected: Option<Arc<Function<ReducerIndex>>>,
    spare_key: OnceLock<SpareKey>,
}

impl ActiveModule {
    pub(crate) fn new(compiled: Arc<CompiledModule>, schema: Arc<DatabaseSchema>) -> Result<Self, HostError> {
        let def = compiled.def();
        let hook =
            |event| def.lifecycle.iter().find(|hook| hook.lifecycle_spec == event).map(|hook| &*hook.function_name);
        let scheduled = |name: &str| def.schedules.iter().any(|schedule| &*schedule.function_name == name);
        let is_hook = |name: &str| def.lifecycle.iter().any(|hook| &*hook.function_name == name);
        let mut reducers = HashMap::new();
        for (position, reducer) in def.reducers.iter().enumerate() {
            let name: Arc<str> = reducer.source_name.as_ref().into();
            let function = Arc::new(Function {
                index: ReducerIndex(position as u32),
                name: name.clone(),
                parameters: inline_product(def, &reducer.params)?,
                return_type: AlgebraicType::unit(),
                callable: reducer.visibility == Visibility::ClientCallable && !scheduled(&name) && !is_hook(&name),
            });
            reducers.insert(def.canonical_function_name(&name).into(), function.clone());
            reducers.insert(Box::from(&*name), function);
        }
        let mut procedures = HashMap::new();
        for (position, procedure) in def.procedures.iter().enumerate() {
            let name: Arc<str> = procedure.source_name.as_ref().into();
            let function = Arc::new(Function {
                index: ProcedureIndex(position as u32),
                name: name.clone(),
                parameters: inline_product(def, &procedure.params)?,
                return_type: inline(def, &procedure.return_type)?,
                callable: procedure.visibility == Visibility::ClientCallable && !scheduled(&name),
            });
            procedures.insert(def.canonical_function_name(&name).into(), function.clone());
            procedures.insert(Box::from(&*name), function);
        }
        let lifecycle = |event| hook(event).and_then(|name| reducers.get(name).cloned());
        let (init, connected, disconnected) = (
            lifecycle(LifecycleEvent::Init),
            lifecycle(LifecycleEvent::OnConnect),
            lifecycle(LifecycleEvent::OnDisconnect),
        );
        let spare_key = OnceLock::new();
        let rules = rule_texts(def);
        let rules = RowRules::compile(rules.iter().map(|(prefix, sql)| (&**prefix, *sql)), &schema)?;
        Ok(ActiveModule { rules, init, connected, disconnected, reducers, procedures, schema, compiled, spare_key })
    }

    /// The module's definition.
    pub fn def(&self) -> &ModuleDef {
        self.compiled.def()
    }

    /// The tables of the version the module runs on.
    pub fn schema(&self) -> &Arc<DatabaseSchema> {
        &self.schema
    }

    /// The row-level security rules, each with what stands before the names of its tables.
    pub(crate) fn rule_texts(&self) -> Vec<(String, &str)> {
        rule_texts(self.def())
    }

    /// What statements are bound to.
    pub(crate) fn catalog(&self) -> Catalog<'_> {
        Catalog { rules: &self.rules, ..Catalog::from(&self.schema) }
    }

    /// blake3 of the program.
    pub fn hash(&self) -> &[u8; 32] {
        self.compiled.hash()
    }

    /// Whether anything runs when a client comes or goes.
    pub(crate) fn has_hooks(&self) -> bool {
        self.connected.is_some() || self.disconnected.is_some()
    }

    /// Names what instances are made from: forks of one database share it.
    pub(crate) fn spare_key(&self) -> SpareKey {
        *self.spare_key.get_or_init(|| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(self.hash()).update(&self.schema.encode());
            SpareKey(*hasher.finalize().as_bytes())
        })
    }

    /// What call records keep of the hash.
    pub(crate) fn short_hash(&self) -> u64 {
        let (first, _) = self.hash().split_first_chunk().expect("a hash has 32 bytes");
        u64::from_le_bytes(*first)
    }
}

/// The row-level security rules of a module, with the prefix of the tables they name.
fn rule_texts(def: &ModuleDef) -> Vec<(String, &str)> {
    let mut rules = Vec::new();
    collect_rules(def, "", &mut rules);
    rules
}

fn collect_rules<'d>(def: &'d ModuleDef, prefix: &str, out: &mut Vec<(String, &'d str)>) {
    out.extend(def.row_level_security.iter().map(|rule| (prefix.to_owned(), &*rule.sql)));
    for submodule in &def.submodules {
        collect_rules(&submodule.module, &format!("{prefix}{}.", submodule.namespace), out);
    }
}

fn inline(def: &ModuleDef, ty: &AlgebraicType) -> Result<AlgebraicType, HostError> {
    def.typespace.inline(ty).map_err(|error| HostError::BadProgram(error.to_string()))
}

fn inline_product(def: &ModuleDef, params: &ProductType) -> Result<ProductType, HostError> {
    match inline(def, &AlgebraicType::Product(params.clone()))? {
        AlgebraicType::Product(product) => Ok(product),
        _ => Err(HostError::BadProgram("parameters that are no product".to_owned())),
    }
}

/// Compiled modules by hash, shared by all forks that run the same code and dropped with the last of them.
pub(crate) struct ModuleCache {
    modules: Mutex<HashMap<[u8; 32], Weak<CompiledModule>>>,
    /// Compiled bundles of earlier runs.
    kept: Option<CodeCache>,
    metrics: Arc<Metrics>,
}

impl ModuleCache {
    pub fn new(kept: Option<CodeCache>, metrics: Arc<Metrics>) -> ModuleCache {
        ModuleCache { modules: Mutex::default(), kept, metrics }
    }

    /// The compiled form of `program`, the bytes of a [`SourceBundle`].
    pub fn compile(&self, program: &[u8], limits: &Limits) -> Result<Arc<CompiledModule>, HostError> {
        let bundle = SourceBundle::decode(program).map_err(|error| HostError::BadProgram(error.to_string()))?;
        // Only the one canonical form of a bundle decodes.
        let hash = *blake3::hash(program).as_bytes();
        if let Some(module) = self.modules.lock().get(&hash).and_then(Weak::upgrade) {
            return Ok(module);
        }
        // Two publishers of the same new program may both compile it; the second result replaces the first, and both are right.
        let started = Instant::now();
        let module = tine_module::compile_with_cache(&bundle, limits, self.kept.as_ref())?;
        self.metrics.modules_loaded.add(1);
        self.metrics.module_load_ns.add_duration(started.elapsed());
        let mut modules = self.modules.lock();
        modules.retain(|_, module| module.strong_count() > 0);
        modules.insert(hash, Arc::downgrade(&module));
        Ok(module)
    }
}
