//! `tine idl`

use std::{fs, io, path::Path, path::PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use tine_idl::{Language, SCHEMA_BYTES_MAX, Schema, diff, generate};

use crate::{failure::Failure, output::Output};

/// `tine idl`
#[derive(Debug, Args)]
pub struct IdlArgs {
    #[command(subcommand)]
    pub command: IdlCommand,
}

/// What to do with schemas of local services.
#[derive(Debug, Subcommand)]
pub enum IdlCommand {
    /// Check a schema, and show its hash
    #[command(after_help = "\
Examples:
  tine idl check echo.jsonc
  tine idl check echo.jsonc --json

A schema is JSON with comments: service, aliases, types, error and commands. Its hash is that of its messages: comments
and names of types do not change it. Client and server compare it when they meet.")]
    Check {
        /// The schema
        schema: PathBuf,
    },
    /// Print the schema of a service that Tine offers to local programs
    #[command(after_help = "\
Examples:
  tine idl schema > tine.jsonc
  tine idl generate tine.jsonc --language cpp,python --out generated/
  tine idl schema world-state > world_state.jsonc")]
    Schema {
        /// Which one
        #[arg(value_enum, default_value_t = OwnService::Tine)]
        service: OwnService,
    },
    /// Make code of a schema: types, a client and a server's dispatcher
    #[command(after_help = "\
Examples:
  tine idl generate echo.jsonc --language rust --out src/
  tine idl generate echo.jsonc --language typescript,cpp,zig,python --out generated/
  tine idl generate echo.jsonc --language rust        (to standard output)
  tine idl generate echo.jsonc --language rust --out src/ --check

The file is named after the service: echo.rs, echo.ts, echo.hpp, echo.zig, echo.py. The code needs the runtime
of its language, in the folder sdks; Python gets a client but no server.")]
    Generate(GenerateArgs),
    /// Compare two versions of a schema, and name what breaks old clients; exit status 1 when something does
    #[command(after_help = "\
Examples:
  tine idl diff echo-v1.jsonc echo-v2.jsonc
  tine idl diff echo-v1.jsonc echo-v2.jsonc --json

The question is whether clients of the old schema understand a server of the new one: new optional fields are fine, new
required ones in requests are not. Whether they may connect is another matter: hashes that differ are refused when both
sides name theirs.")]
    Diff {
        /// The old schema
        old: PathBuf,
        /// The new schema
        new: PathBuf,
    },
}

/// The services whose schemas the program has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OwnService {
    /// What `tine serve --ipc` serves
    Tine,
    /// What `tine world-state serve --ipc` serves
    WorldState,
}

/// `tine idl generate`
#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// The schema
    pub schema: PathBuf,
    /// Languages: rust, typescript, cpp, zig, python
    #[arg(long, short, value_name = "LANGUAGE", value_delimiter = ',', required = true)]
    pub language: Vec<Language>,
    /// Folder to write to; it is made when it is not there [default: standard output]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Write nothing; fail when a file in the folder is not what would be written
    #[arg(long, requires = "out")]
    pub check: bool,
}

/// Runs the verb.
///
/// # Errors
/// Files that cannot be read or written, schemas that are none, and breaking changes.
pub fn run(args: &IdlArgs, output: &Output) -> Result<(), Failure> {
    match &args.command {
        IdlCommand::Check { schema } => check(schema, output),
        IdlCommand::Schema { service } => schema(*service, output),
        IdlCommand::Generate(args) => generate_files(args, output),
        IdlCommand::Diff { old, new } => compare(old, new, output),
    }
}

fn check(path: &Path, output: &Output) -> Result<(), Failure> {
    let schema = read(path)?;
    let hash = schema.hash_hex();
    if output.is_json() {
        let commands =
            schema.commands.iter().map(|command| json!({ "name": command.name, "stream": command.is_stream }));
        return output.json(&json!({
            "service": schema.service,
            "hash": hash,
            "types": schema.types.iter().map(|ty| &ty.name).collect::<Vec<_>>(),
            "commands": commands.collect::<Vec<_>>(),
        }));
    }
    let (commands, types) = (schema.commands.len(), schema.types.len());
    output.lines([format!("{}: {commands} commands, {types} shared types", schema.service), format!("hash {hash}")])
}

fn schema(service: OwnService, output: &Output) -> Result<(), Failure> {
    let text = match service {
        OwnService::Tine => tine_local::SCHEMA,
        OwnService::WorldState => tine_worldstate::service::SCHEMA,
    };
    if output.is_json() {
        return output.json(&json!({ "schema": text }));
    }
    output.lines(text.lines().map(str::to_owned))
}

fn generate_files(args: &GenerateArgs, output: &Output) -> Result<(), Failure> {
    let schema = read(&args.schema)?;
    let files = args.language.iter().map(|language| (language.file_name(&schema), generate(&schema, *language)));
    let Some(folder) = &args.out else {
        if output.is_json() {
            return output
                .json_list("files", files.map(|(name, text)| json!({ "name": name, "text": text })).collect());
        }
        return output.lines(files.flat_map(|(_, text)| text.lines().map(str::to_owned).collect::<Vec<_>>()));
    };
    let mut written = Vec::new();
    for (name, text) in files {
        let path = folder.join(name);
        if args.check {
            check_file(&path, &text)?;
        } else {
            fs::create_dir_all(folder).map_err(|source| Failure::File { path: folder.to_owned(), source })?;
            fs::write(&path, text).map_err(|source| Failure::File { path: path.to_owned(), source })?;
        }
        written.push(path.display().to_string());
    }
    if output.is_json() {
        return output.json_list("files", written.into_iter().map(|path| json!({ "path": path })).collect());
    }
    let done = if args.check { "up to date" } else { "wrote" };
    output.lines(written.iter().map(|path| format!("{done}: {path}")))
}

fn check_file(path: &Path, text: &str) -> Result<(), Failure> {
    let found = match fs::read_to_string(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(source) => return Err(Failure::File { path: path.to_owned(), source }),
    };
    if found == text {
        return Ok(());
    }
    Err(Failure::Schema {
        code: "TN1061",
        message: format!("{} is not what the schema generates", path.display()),
        next: Some("run the command without --check, and commit the result"),
    })
}

fn compare(old: &Path, new: &Path, output: &Output) -> Result<(), Failure> {
    let (old, new) = (read(old)?, read(new)?);
    let changes = diff(&old, &new);
    let breaking = changes.iter().filter(|change| change.is_breaking).count();
    if output.is_json() {
        let changes = changes
            .iter()
            .map(|change| json!({ "breaking": change.is_breaking, "place": change.place, "change": change.text }));
        output.json_list("changes", changes.collect())?;
    } else if changes.is_empty() {
        output.line("no difference on the wire")?;
    } else {
        let kind = |is_breaking| if is_breaking { "breaking" } else { "fine    " };
        output.lines(changes.iter().map(|change| format!("{}  {change}", kind(change.is_breaking))))?;
    }
    if breaking == 0 {
        return Ok(());
    }
    Err(Failure::Schema {
        code: "TN1060",
        message: format!("{breaking} of {} changes break clients of the old schema", changes.len()),
        next: Some("make new fields of requests optional, or give the command a new name"),
    })
}

fn read(path: &Path) -> Result<Schema, Failure> {
    let size = fs::metadata(path).map_err(|source| Failure::File { path: path.to_owned(), source })?.len();
    // The parser checks again; this spares reading what is no schema.
    let text = if size > SCHEMA_BYTES_MAX as u64 {
        " ".repeat(SCHEMA_BYTES_MAX + 1)
    } else {
        fs::read_to_string(path).map_err(|source| Failure::File { path: path.to_owned(), source })?
    };
    Schema::parse(&text).map_err(|error| Failure::Schema {
        code: error.code(),
        message: format!("{}:{error}", path.display()),
        next: None,
    })
}
