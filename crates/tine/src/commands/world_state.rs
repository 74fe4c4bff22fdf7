//! `tine world-state` and `tine aztec-wsdb`: the same service, with a command line of ours and with that of the program
//! it stands in for.
//!
//! That program is started by its clients, so a link named `aztec-wsdb` to this binary acts as `tine aztec-wsdb`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use serde_json::json;
use tine_base::SystemEnv;
use tine_worldstate::{Endpoint, EndpointError, OpenWorldError, TreeId, World, WorldError, WorldOptions, wire};
use tokio::sync::Notify;

use super::serve::Signals;
use crate::{args::ipc_path, failure::Failure, output::Output};

/// The name of the program that this stands in for.
pub const PROGRAM: &str = "aztec-wsdb";

/// How long replies that are ready may take to leave when the service ends.
const FLUSH_LIMIT: Duration = Duration::from_secs(5);

/// The most threads that requests run on: beyond it they only wait for one another.
const THREADS_MAX: usize = 64;

/// `tine world-state`
#[derive(Debug, Args)]
pub struct WorldStateArgs {
    #[command(subcommand)]
    command: WorldStateCommand,
}

/// What to do with a world state.
#[derive(Debug, Subcommand)]
enum WorldStateCommand {
    /// Serve a world state to local programs
    #[command(after_help = "\
Examples:
  tine world-state serve ./state --ipc /run/world.shm --ipc /run/world.sock
  tine world-state serve ./state --plain world.sock --tree-prefill '{0:256,2:256}'

Clients that were generated from `tine idl schema world-state` connect to the paths of --ipc, clients of `aztec-wsdb` to
the plain socket. The heights and initial sizes of the trees are part of every root: a directory that was made with
others is refused.")]
    Serve(ServeWorldArgs),
}

/// `tine world-state serve`
#[derive(Debug, Args)]
struct ServeWorldArgs {
    /// Directory of the world state; made if it is not there
    directory: PathBuf,
    /// Path for clients of the schema: a Unix socket (FILE.sock) or shared memory (FILE.shm); may be repeated
    #[arg(long, value_name = "PATH", value_parser = ipc_path, required_unless_present = "plain")]
    ipc: Vec<PathBuf>,
    /// Socket for clients of `aztec-wsdb`
    #[arg(long, value_name = "FILE.sock")]
    plain: Option<PathBuf>,
    #[command(flatten)]
    trees: TreeArgs,
}

/// `tine aztec-wsdb`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tine aztec-wsdb msgpack schema
  tine aztec-wsdb msgpack run --input world.sock --data-dir ./state
  ln -s \"$(command -v tine)\" aztec-wsdb     (for clients that start the program themselves)")]
pub struct AztecWsdbArgs {
    /// The program's own arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    arguments: Vec<OsString>,
}

/// The command line of the program that this stands in for.
#[derive(Debug, Parser)]
#[command(name = PROGRAM, about = "World state database server")]
struct StandIn {
    #[command(subcommand)]
    interface: Interface,
}

#[derive(Debug, Subcommand)]
enum Interface {
    /// The MessagePack interface
    Msgpack {
        #[command(subcommand)]
        command: Msgpack,
    },
}

#[derive(Debug, Subcommand)]
enum Msgpack {
    /// Print the schema of commands and responses
    Schema,
    /// Serve
    Run(Box<RunArgs>),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Path of the socket to serve; ends in .sock
    #[arg(long, short)]
    input: PathBuf,
    /// Directory of the world state
    #[arg(long, short)]
    data_dir: PathBuf,
    /// Accepted and not used: shared memory has its own sizes
    #[arg(long)]
    request_ring_size: Option<u64>,
    /// Accepted and not used: shared memory has its own sizes
    #[arg(long)]
    response_ring_size: Option<u64>,
    #[command(flatten)]
    trees: TreeArgs,
}

/// What both command lines say of the trees.
#[derive(Debug, Args)]
struct TreeArgs {
    /// Heights by tree: {0:42,1:42,2:40,3:36,4:30}
    #[arg(long, value_name = "{ID:HEIGHT,...}", value_parser = by_tree)]
    tree_heights: Option<ByTree>,
    /// Initial sizes of the indexed trees: {0:128,2:128}
    #[arg(long, value_name = "{ID:SIZE,...}", value_parser = by_tree)]
    tree_prefill: Option<ByTree>,
    /// What clients are told that each tree may take on disk: {0:KiB,...}
    #[arg(long, value_name = "{ID:KIB,...}", value_parser = by_tree)]
    map_sizes: Option<ByTree>,
    /// Threads for requests
    #[arg(long, short, default_value_t = 16)]
    threads: usize,
    /// First input of the hash of the first block's header
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    initial_header_generator_point: u64,
    /// Time in the first block's header, in seconds since the Unix epoch
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    genesis_timestamp: u64,
    /// Slots and values to start with: [["slot","value"],...], in hexadecimal
    #[arg(long, value_name = "JSON", value_parser = words::<2>)]
    prefilled_public_data: Option<Words<2>>,
    /// Nullifiers to start with: ["nullifier",...], in hexadecimal
    #[arg(long, value_name = "JSON", value_parser = words::<1>)]
    prefilled_nullifiers: Option<Words<1>>,
}

/// A number for some of the trees.
type ByTree = [Option<u64>; TreeId::COUNT];

/// Rows of 32-byte words.
#[derive(Clone, Debug)]
struct Words<const N: usize>(Vec<[[u8; 32]; N]>);

/// Runs `tine world-state`.
///
/// # Errors
/// The world state cannot be opened or served.
pub fn run(args: &WorldStateArgs, output: &Output) -> Result<(), Failure> {
    let WorldStateCommand::Serve(args) = &args.command;
    let options = args.trees.options(&args.directory)?;
    serve(&options, &args.ipc, args.plain.as_deref(), &|| {
        if output.is_json() {
            let (ipc, plain, pid) = (&args.ipc, &args.plain, std::process::id());
            return output.json(&json!({ "event": "listening", "ipc": ipc, "plain": plain, "pid": pid }));
        }
        let paths: Vec<String> = args.ipc.iter().chain(&args.plain).map(|path| path.display().to_string()).collect();
        output.lines([format!("the world state in {} is served on {}", args.directory.display(), paths.join(" and "))])
    })
}

/// Runs `tine aztec-wsdb`. Like the program it stands in for, it says what is wrong with `Error:` and exits with 1.
///
/// # Errors
/// Standard output cannot be written.
pub fn stand_in(args: &AztecWsdbArgs, output: &Output) -> Result<(), Failure> {
    let arguments = std::iter::once(OsString::from(PROGRAM)).chain(args.arguments.iter().cloned());
    let Interface::Msgpack { command } = StandIn::parse_from(arguments).interface;
    let run = match command {
        Msgpack::Schema => return output.lines([wire::schema()]),
        Msgpack::Run(run) => run,
    };
    end_with_parent();
    let served = run.trees.options(&run.data_dir).and_then(|options| {
        serve(&options, &[], Some(&run.input), &|| {
            eprintln!("{PROGRAM} IPC server ready");
            Ok(())
        })
    });
    if let Err(failure) = served {
        eprintln!("Error: {failure}");
        std::process::exit(1);
    }
    Ok(())
}

/// Has the kernel send SIGTERM when the parent dies: whoever starts the program expects it to end with them.
fn end_with_parent() {
    // SAFETY: sets an attribute of this process and touches no memory.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) };
}

fn serve(
    options: &WorldOptions,
    ipc: &[PathBuf],
    plain: Option<&Path>,
    announce: &dyn Fn() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Handlers come first, so that a signal during recovery is not the default action.
    let mut signals = runtime.block_on(async { Signals::new() })?;
    let world = World::open(options, Arc::new(SystemEnv))?;
    let ended = Arc::new(Notify::new());
    let end = Arc::clone(&ended);
    let mut endpoint = Endpoint::new(&world, move || end.notify_one())?;
    for path in ipc {
        endpoint.listen(path)?;
    }
    if let Some(plain) = plain {
        endpoint.listen_plain(plain, options.map_bytes)?;
    }
    let serving = endpoint.start()?;
    announce()?;
    runtime.block_on(async {
        tokio::select! {
            () = signals.next() => {}
            () = ended.notified() => {}
        }
    });
    serving.stop(FLUSH_LIMIT)?;
    Ok(world.close()?)
}

impl TreeArgs {
    fn options(&self, directory: &Path) -> Result<WorldOptions, Failure> {
        let mut options = WorldOptions::new(directory);
        if let Some(heights) = &self.tree_heights {
            for (height, given) in options.heights.iter_mut().zip(heights) {
                let given = given.ok_or_else(|| Failure::usage("--tree-heights names all five trees"))?;
                *height = u32::try_from(given).unwrap_or(u32::MAX);
            }
        }
        if let Some(prefill) = &self.tree_prefill {
            options.nullifier_prefill = prefill[0].unwrap_or(options.nullifier_prefill);
            options.public_data_prefill = prefill[2].unwrap_or(options.public_data_prefill);
        }
        for (bytes, kib) in options.map_bytes.iter_mut().zip(self.map_sizes.unwrap_or_default()) {
            *bytes = kib.map_or(*bytes, |kib| kib.saturating_mul(1024));
        }
        options.threads = self.threads.min(THREADS_MAX);
        options.initial_header_generator_point = self.initial_header_generator_point;
        options.genesis_timestamp = self.genesis_timestamp;
        if let Some(Words(rows)) = &self.prefilled_public_data {
            options.prefilled_public_data = rows.iter().map(|[slot, value]| (*slot, *value)).collect();
        }
        if let Some(Words(rows)) = &self.prefilled_nullifiers {
            options.prefilled_nullifiers = rows.iter().map(|[key]| *key).collect();
        }
        Ok(options)
    }
}

/// `{0:1,2:3}`, which is not JSON.
fn by_tree(text: &str) -> Result<ByTree, String> {
    let inner = text.trim().strip_prefix('{').and_then(|text| text.strip_suffix('}'));
    let inner = inner.ok_or("braces are missing")?;
    let mut numbers = ByTree::default();
    for pair in inner.split(',').filter(|pair| !pair.trim().is_empty()) {
        let (tree, number) = pair.split_once(':').ok_or_else(|| format!("`{pair}` has no colon"))?;
        let tree: usize = tree.trim().trim_matches('"').parse().map_err(|_| format!("`{tree}` is no tree"))?;
        let slot = numbers.get_mut(tree).ok_or_else(|| format!("there is no tree {tree}"))?;
        *slot = Some(number.trim().parse().map_err(|_| format!("`{number}` is no number"))?);
    }
    Ok(numbers)
}

/// A JSON list of rows of hexadecimal words; a row of one word is the word itself.
fn words<const N: usize>(text: &str) -> Result<Words<N>, String> {
    let word = |value: &serde_json::Value| -> Result<[u8; 32], String> {
        let text = value.as_str().ok_or("a value is no text")?;
        let digits = text.strip_prefix("0x").unwrap_or(text);
        let is_hex = digits.len() <= 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        if !is_hex {
            return Err(format!("`{text}` is no number of 32 bytes in hexadecimal"));
        }
        let padded = format!("{digits:0>64}");
        Ok(std::array::from_fn(|at| u8::from_str_radix(&padded[2 * at..2 * at + 2], 16).expect("two digits")))
    };
    let rows: Vec<serde_json::Value> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let row = |value: &serde_json::Value| -> Result<[[u8; 32]; N], String> {
        let values = match value {
            serde_json::Value::Array(values) if N > 1 => values.iter().collect(),
            value => vec![value],
        };
        let words = values.into_iter().map(word).collect::<Result<Vec<_>, _>>()?;
        words.try_into().map_err(|_| format!("a row does not have {N} values"))
    };
    rows.iter().map(row).collect::<Result<_, _>>().map(Words)
}

impl From<OpenWorldError> for Failure {
    fn from(error: OpenWorldError) -> Failure {
        Failure::World { code: error.code(), message: with_causes(&error) }
    }
}

impl From<EndpointError> for Failure {
    fn from(error: EndpointError) -> Failure {
        Failure::World { code: error.code(), message: with_causes(&error) }
    }
}

impl From<WorldError> for Failure {
    fn from(error: WorldError) -> Failure {
        Failure::World { code: error.code(), message: with_causes(&error) }
    }
}

/// An error's text with those of its causes.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_by_tree() {
        assert_eq!(by_tree("{0:42, 4:30}"), Ok([Some(42), None, None, None, Some(30)]));
        assert_eq!(by_tree("{}"), Ok(ByTree::default()));
        for wrong in ["0:1", "{0}", "{5:1}", "{0:x}", "{a:1}"] {
            assert!(by_tree(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn rows_of_words() {
        let rows = words::<2>(r#"[["1","0x02"],["ff","0"]]"#).unwrap().0;
        assert_eq!((rows[0][0][31], rows[0][1][31], rows[1][0][31]), (1, 2, 255));
        assert_eq!(words::<1>(r#"["7"]"#).unwrap().0[0][0][31], 7);
        for wrong in ["x", "[1]", r#"["zz"]"#, r#"[["1","2"]]"#, &format!("[\"{}\"]", "1".repeat(65))] {
            assert!(words::<1>(wrong).is_err(), "{wrong}");
        }
        assert!(words::<2>(r#"[["1"]]"#).is_err());
    }
}
