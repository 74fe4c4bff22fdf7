//! A module that runs on a fork: compiled code, its schema, and where its functions are.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use parking_lot::Mutex;
use tine_module::{CodeCache, CompiledModule, HandlerIndex, ProcedureIndex, ReducerIndex, SourceBundle, ViewIndex};
use tine_query::{Catalog, RowRules};
use tine_tables::{COLUMNS_MAX, ColumnId, ColumnSchema, DatabaseSchema};
use tine_types::AlgebraicType;
use tine_types::module_def::{HttpMethod, LifecycleEvent, MethodOrAny, ModuleDef, ViewDef, Visibility};
use tine_types::{ProductType, ProductTypeElement};

use crate::instances::SpareKey;
use crate::isolation::InstanceMaker;
use crate::meta::Meta;
use crate::metrics::Metrics;
use crate::{HostError, IsolationMode};

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
    /// Where it runs, if the version says so.
    pub(crate) isolation: Option<IsolationMode>,
    /// Which rows others than the owner see.
    pub(crate) rules: RowRules,
    pub(crate) reducers: HashMap<Box<str>, Arc<Function<ReducerIndex>>>,
    pub(crate) procedures: HashMap<Box<str>, Arc<Function<ProcedureIndex>>>,
    /// By their indexes.
    pub(crate) views: Vec<Arc<DefinedView>>,
    pub(crate) routes: Vec<Route>,
    pub(crate) init: Option<Arc<Function<ReducerIndex>>>,
    pub(crate) connected: Option<Arc<Function<ReducerIndex>>>,
    pub(crate) disconnected: Option<Arc<Function<ReducerIndex>>>,
    spare_key: OnceLock<SpareKey>,
}

/// A view that clients read like a table.
pub(crate) struct DefinedView {
    pub index: ViewIndex,
    /// Canonical name, with the namespaces of its module.
    pub name: Arc<str>,
    /// The name in the source, likewise; an alias.
    pub accessor: Arc<str>,
    pub columns: Vec<ColumnSchema>,
    pub primary_key: Option<ColumnId>,
    /// Whether others than the owner may read it.
    pub public: bool,
    pub is_anonymous: bool,
}

/// A route to an HTTP handler.
pub(crate) struct Route {
    pub method: MethodOrAny,
    pub path: Box<str>,
    pub handler: HandlerIndex,
    pub name: Arc<str>,
}

/// Functions under their names in the source and their canonical ones.
type Functions<Index> = HashMap<Box<str>, Arc<Function<Index>>>;

impl ActiveModule {
    /// `isolation` is what the module was compiled for.
    pub(crate) fn new(
        compiled: Arc<CompiledModule>,
        schema: Arc<DatabaseSchema>,
        isolation: Option<IsolationMode>,
    ) -> Result<Self, HostError> {
        let def = compiled.def();
        let (mut reducers, mut procedures, mut views) = (Functions::new(), Functions::new(), Vec::new());
        let (mut reducer_count, mut procedure_count) = (0, 0);
        for (prefix, module) in def.flatten() {
            let prefix = &*prefix;
            let private = |name: &str| {
                module.schedules.iter().any(|schedule| &*schedule.function_name == name)
                    || module.lifecycle.iter().any(|hook| &*hook.function_name == name)
            };
            for reducer in &module.reducers {
                let source = &*reducer.source_name;
                let function = Function {
                    index: ReducerIndex(reducer_count),
                    name: format!("{prefix}{source}").into(),
                    parameters: inline_product(module, &reducer.params)?,
                    return_type: AlgebraicType::unit(),
                    callable: reducer.visibility == Visibility::ClientCallable && !private(source),
                };
                reducer_count += 1;
                add_function(&mut reducers, prefix, module, source, function);
            }
            for procedure in &module.procedures {
                let source = &*procedure.source_name;
                let function = Function {
                    index: ProcedureIndex(procedure_count),
                    name: format!("{prefix}{source}").into(),
                    parameters: inline_product(module, &procedure.params)?,
                    return_type: inline(module, &procedure.return_type)?,
                    callable: procedure.visibility == Visibility::ClientCallable && !private(source),
                };
                procedure_count += 1;
                add_function(&mut procedures, prefix, module, source, function);
            }
            for view in &module.views {
                let index = ViewIndex(views.len() as u32);
                views.push(Arc::new(DefinedView::new(index, prefix, module, view)?));
            }
        }
        let lifecycle = |event| {
            let hook = def.lifecycle.iter().find(|hook| hook.lifecycle_spec == event)?;
            reducers.get(&hook.function_name).cloned()
        };
        let (init, connected, disconnected) = (
            lifecycle(LifecycleEvent::Init),
            lifecycle(LifecycleEvent::OnConnect),
            lifecycle(LifecycleEvent::OnDisconnect),
        );
        let rules = rule_texts(def);
        let rules = RowRules::compile(rules.iter().map(|(prefix, sql)| (&**prefix, *sql)), &schema)?;
        let routes = routes(def)?;
        Ok(ActiveModule {
            rules,
            init,
            connected,
            disconnected,
            reducers,
            procedures,
            views,
            routes,
            schema,
            compiled,
            isolation,
            spare_key: OnceLock::new(),
        })
    }

    /// Whether there are any views.
    pub(crate) fn has_views(&self) -> bool {
        !self.views.is_empty()
    }

    /// The view with a canonical or source name.
    pub(crate) fn view_named(&self, name: &str) -> Option<&Arc<DefinedView>> {
        self.views.iter().find(|view| *view.name == *name || *view.accessor == *name)
    }

    /// Whether the text is a statement that names a view.
    pub(crate) fn names_view(&self, text: &str) -> bool {
        self.has_views() && tine_query::names_of(text).iter().any(|name| self.view_named(name).is_some())
    }

    /// Where requests with a method for a path go.
    pub(crate) fn route(&self, method: &HttpMethod, path: &str) -> Option<&Route> {
        self.routes.iter().find(|route| {
            let fits = match &route.method {
                MethodOrAny::Any => true,
                MethodOrAny::Method(one) => one == method,
            };
            fits && *route.path == *path
        })
    }

    /// The module's definition.
    pub fn def(&self) -> &ModuleDef {
        self.compiled.def()
    }

    /// The tables of the version the module runs on.
    pub fn schema(&self) -> &Arc<DatabaseSchema> {
        &self.schema
    }

    /// The parameters of a reducer or procedure, by its canonical or source name.
    pub fn parameters(&self, function: &str) -> Option<&ProductType> {
        let reducer = self.reducers.get(function).map(|reducer| &reducer.parameters);
        reducer.or_else(|| Some(&self.procedures.get(function)?.parameters))
    }

    /// What a procedure returns, by its canonical or source name.
    pub fn return_type(&self, procedure: &str) -> Option<&AlgebraicType> {
        Some(&self.procedures.get(procedure)?.return_type)
    }

    /// The type of the rows that messages hold under this canonical name of a table, view or system table.
    pub fn row_type(&self, table: &str) -> Option<ProductType> {
        if let Some(table) = self.schema.table_named(table) {
            return Some(table.row_type.clone());
        }
        if let Some(view) = self.view_named(table) {
            let elements = view.columns.iter().map(|column| ProductTypeElement::named(&column.name, column.ty.clone()));
            return Some(ProductType { elements: elements.collect() });
        }
        crate::system::schemas().iter().find(|system| *system.name == *table).map(|table| table.row_type.clone())
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
            hasher.update(self.isolation.map_or("", IsolationMode::name).as_bytes());
            SpareKey(*hasher.finalize().as_bytes())
        })
    }

    /// What call records keep of the hash.
    pub(crate) fn short_hash(&self) -> u64 {
        let (first, _) = self.hash().split_first_chunk().expect("a hash has 32 bytes");
        u64::from_le_bytes(*first)
    }
}

/// Enters a function under its names.
fn add_function<Index>(
    functions: &mut Functions<Index>,
    prefix: &str,
    module: &ModuleDef,
    source: &str,
    function: Function<Index>,
) {
    let function = Arc::new(function);
    functions.insert(format!("{prefix}{}", module.canonical_function_name(source)).into(), function.clone());
    functions.insert(Box::from(&*function.name), function);
}

impl DefinedView {
    fn new(index: ViewIndex, prefix: &str, module: &ModuleDef, view: &ViewDef) -> Result<Self, HostError> {
        let row = view.row_type(&module.typespace).map_err(|error| HostError::BadProgram(error.to_string()))?;
        let row =
            row.ok_or_else(|| HostError::BadProgram(format!("the view `{}` returns no rows", view.source_name)))?;
        if row.elements.len() > COLUMNS_MAX {
            let problem = format!("the view `{}` has more than {COLUMNS_MAX} columns", view.source_name);
            return Err(HostError::BadProgram(problem));
        }
        let columns = row.elements.iter().zip(0..).map(|(element, position)| {
            let accessor = element.name.as_deref().unwrap_or_default();
            ColumnSchema {
                name: module.canonical_column_name(accessor).into(),
                accessor: accessor.into(),
                ty: element.ty.clone(),
                position: ColumnId(position),
            }
        });
        let columns: Vec<_> = columns.collect();
        let key = module.view_primary_keys.iter().find(|key| key.view_source_name == view.source_name);
        let key = key.and_then(|key| key.columns.first());
        let primary_key = key.and_then(|key| columns.iter().find(|column| *column.accessor == **key));
        Ok(DefinedView {
            index,
            name: format!("{prefix}{}", module.canonical_function_name(&view.source_name)).into(),
            accessor: format!("{prefix}{}", view.source_name).into(),
            primary_key: primary_key.map(|column| column.position),
            columns,
            public: view.is_public,
            is_anonymous: view.is_anonymous,
        })
    }
}

/// The routes of the root module: those of libraries are the libraries' own affair.
fn routes(def: &ModuleDef) -> Result<Vec<Route>, HostError> {
    let routes = def.http_routes.iter().map(|route| {
        let name = &route.handler_function;
        let handler = def.http_handlers.iter().position(|handler| handler.source_name == *name);
        let handler = handler.ok_or_else(|| HostError::BadProgram(format!("there is no HTTP handler `{name}`")))?;
        Ok(Route {
            method: route.method.clone(),
            path: route.path.clone(),
            handler: HandlerIndex(handler as u32),
            name: (&**name).into(),
        })
    });
    routes.collect()
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

/// BLAKE3 of a program, and what it was compiled for.
type CompiledKey = ([u8; 32], IsolationMode);

/// Compiled modules by hash and where they run, shared by all forks that run the same code and dropped with the last of them.
pub(crate) struct ModuleCache {
    modules: Mutex<HashMap<CompiledKey, Weak<CompiledModule>>>,
    maker: Arc<InstanceMaker>,
    /// Compiled bundles of earlier runs.
    kept: Option<CodeCache>,
    metrics: Arc<Metrics>,
}

impl ModuleCache {
    pub fn new(maker: Arc<InstanceMaker>, kept: Option<CodeCache>, metrics: Arc<Metrics>) -> ModuleCache {
        ModuleCache { modules: Mutex::default(), maker, kept, metrics }
    }

    /// The compiled form of `program`, the bytes of a [`SourceBundle`], to run where a version says.
    pub fn compile(&self, program: &[u8], isolation: Option<IsolationMode>) -> Result<Arc<CompiledModule>, HostError> {
        let bundle = SourceBundle::decode(program).map_err(|error| HostError::BadProgram(error.to_string()))?;
        let mode = self.maker.mode(isolation);
        // Only the one canonical form of a bundle decodes.
        let key = (*blake3::hash(program).as_bytes(), mode);
        if let Some(module) = self.modules.lock().get(&key).and_then(Weak::upgrade) {
            return Ok(module);
        }
        // Two publishers of the same new program may both compile it; the second result replaces the first, and both are right.
        let started = Instant::now();
        let module = self.maker.compile(&bundle, mode, self.kept.as_ref())?;
        self.metrics.modules_loaded.add(1);
        self.metrics.module_load_ns.add_duration(started.elapsed());
        let mut modules = self.modules.lock();
        modules.retain(|_, module| module.strong_count() > 0);
        modules.insert(key, Arc::downgrade(&module));
        Ok(module)
    }

    /// The module of a version, to run where that says.
    pub fn of_version(&self, meta: &Meta) -> Result<Arc<ActiveModule>, HostError> {
        self.of_version_in(meta, meta.isolation)
    }

    /// The module of a version, to run elsewhere.
    pub fn of_version_in(&self, meta: &Meta, isolation: Option<IsolationMode>) -> Result<Arc<ActiveModule>, HostError> {
        let compiled = self.compile(&meta.program, isolation)?;
        Ok(Arc::new(ActiveModule::new(compiled, meta.schema.clone(), isolation)?))
    }
}
