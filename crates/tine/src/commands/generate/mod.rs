//! `tine generate`: typed client code for a module.
//!
//! TypeScript comes in two forms, in one folder: bindings for the npm package `spacetimedb` (`index.ts` and `types.ts`), and a typed
//! wrapper of the server's own browser client (`tine.ts`, with the client's declarations beside it). Nothing but the module
//! definition goes in, so the same module gives the same files, and files that would not change are not written.

mod bindings;
mod model;
mod wrapper;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use serde_json::json;
use tine_module::{Limits, SourceBundle};
use tine_types::module_def::ModuleDef;

use self::model::Model;
use super::Context;
use crate::{args::GlobalArgs, failure::Failure, output::Output};

/// What stands at the top of every file.
const HEADER: &str = "// Written by `tine generate` from a module definition. Changes are lost when it runs again.\n";
/// The browser client's declarations, which the wrapper refines.
const CLIENT_DECLARATIONS: &str = include_str!("../../../../../web/client.d.ts");

/// `tine generate`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tine generate --lang typescript --out-dir src/bindings                         (of the module in this folder)
  tine generate --lang typescript --out-dir src/bindings --module-path ./server
  tine generate --lang typescript --out-dir src/bindings --database quickstart@exp1

`index.ts` and `types.ts` are for the npm package `spacetimedb`, `tine.ts` for the server's own /tine/client.js.")]
pub struct GenerateArgs {
    /// Language of the code
    #[arg(long, value_enum, default_value = "typescript")]
    pub lang: Language,
    /// Folder of the files; made if it is not there
    #[arg(long, value_name = "DIR")]
    pub out_dir: PathBuf,
    /// A .ts or .js file, or a folder with src/index.ts or index.ts in it
    #[arg(long, value_name = "PATH", default_value = ".", conflicts_with = "database")]
    pub module_path: PathBuf,
    /// The module of a database, or of a fork `name@fork`, instead of one from files
    #[arg(long, value_name = "NAME")]
    pub database: Option<String>,
    /// Private tables, too: only the owner can read them
    #[arg(long)]
    pub include_private: bool,
}

/// A language code is generated in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Language {
    /// TypeScript.
    #[value(alias = "ts")]
    Typescript,
}

/// Writes the files.
///
/// # Errors
/// A module that does not compile, a database that is not there, types that TypeScript cannot say, and files that cannot be written.
pub fn run(args: &GenerateArgs, global: &GlobalArgs, output: &Output) -> Result<(), Failure> {
    let definition = match &args.database {
        Some(database) => from_server(database, global, output)?,
        None => from_files(&args.module_path)?,
    };
    let model = Model::new(&definition, args.include_private).map_err(|problem| Failure::Module {
        code: "TN0860",
        message: format!("no code can be generated for the module: {problem}"),
        next: None,
    })?;
    let files = [
        ("types.ts", format!("{HEADER}{}", bindings::types(&model))),
        ("index.ts", format!("{HEADER}{}", bindings::index(&model))),
        ("tine.ts", format!("{HEADER}{}", wrapper::wrapper(&model))),
        ("tine_client.d.ts", format!("{HEADER}{CLIENT_DECLARATIONS}")),
    ];
    let mut written = Vec::new();
    for (name, text) in &files {
        if write_if_changed(&args.out_dir.join(name), text)? {
            written.push(*name);
        }
    }
    let counts = [
        ("tables", model.tables.len()),
        ("reducers", model.reducers.len()),
        ("procedures", model.procedures.len()),
        ("types", model.types.len()),
    ];
    if output.is_json() {
        let mut value = json!({ "folder": args.out_dir, "written": written });
        counts.iter().for_each(|(name, count)| value[name] = json!(count));
        return output.json(&value);
    }
    let counts = counts.map(|(name, count)| format!("{count} {name}")).join(", ");
    let changed =
        if written.is_empty() { "nothing changed".to_owned() } else { format!("wrote {}", written.join(", ")) };
    output.line(&format!("{}: {counts}; {changed}", args.out_dir.display()))
}

fn from_files(path: &Path) -> Result<Arc<ModuleDef>, Failure> {
    let bundle = SourceBundle::collect(path).map_err(|source| Failure::Collect { source })?;
    let compiled = tine_module::compile(&bundle, &Limits::default());
    let compiled =
        compiled.map_err(|source| Failure::Module { code: source.code(), message: source.to_string(), next: None })?;
    Ok(compiled.def().clone())
}

fn from_server(database: &str, global: &GlobalArgs, output: &Output) -> Result<Arc<ModuleDef>, Failure> {
    let context = Context::new(global, output)?;
    let database = context.settings.complete_database(database)?;
    let definition = context.http.schema_json(&database)?;
    ModuleDef::from_json(&definition).map(Arc::new).map_err(|error| {
        let reason = error.to_string();
        tine_client::ClientError::BadReply { route: "GET schema".to_owned(), reason }.into()
    })
}

/// Writes a file unless it holds this text already. Returns whether it did.
fn write_if_changed(path: &Path, text: &str) -> Result<bool, Failure> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(false);
    }
    let failed = |source| Failure::File { path: path.to_owned(), source };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    fs::write(path, text).map_err(failed)?;
    Ok(true)
}
