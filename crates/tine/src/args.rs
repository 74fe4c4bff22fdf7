//! The command line's grammar and its help.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};
use tine_client::http::ForkPoint;
use tine_types::Timestamp;

use crate::{
    commands::{
        backup::{BackupArgs, RestoreArgs},
        completions::CompletionsArgs,
        config::ConfigArgs,
        dev::DevArgs,
        doctor::DoctorArgs,
        explain::ExplainArgs,
        generate::GenerateArgs,
        identity::IdentityArgs,
        idl::IdlArgs,
        init::InitArgs,
        redo::{HistoryArgs, ReplayArgs, VerifyArgs},
        store::StoreArgs,
        world_state::{AztecWsdbArgs, WorldStateArgs},
    },
    consent::Consent,
    demo::DemoArgs,
    output::Format,
};

const EXIT_HELP: &str = "\
Exit status:
  0  done
  1  the call, statement or module was refused or failed
  2  the command line, the settings or an argument is wrong
  3  no connection to the server
  4  no such database, fork, table, function or file
  5  not authorised
  6  conflict: the name is taken, the directory is in use, there are forks
  7  no answer in time
  8  the disk or the data directory failed
  9  the server failed or broke the protocol

Settings come from the flag, else the TINE_* variable shown, else the project's `.tine` file, else
`tine.toml`, both in this directory or in one above it (keys: server, data_dir, database, listen,
token, images), else the default; `tine config show` tells which. Databases are named by name or identity;
`name@fork` names one fork, `.` the project's database and `@fork` a fork of it.

`tine explain TN0601` tells what an error code means and what to do about it.";

/// What stands for the project's database.
pub const HERE: &str = ".";

/// A forkable, programmable database: TypeScript modules run next to the data, clients subscribe to
/// live queries, and the live database forks at once into full databases of their own.
#[derive(Debug, Parser)]
#[command(name = "tine", version, after_help = EXIT_HELP, max_term_width = 100, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// What every verb understands.
    #[command(flatten)]
    pub global: GlobalArgs,
}

/// Options of every verb.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArgs {
    /// Form of the output: `json` is one document, or one object per line where output streams; `ndjson` puts lists, too,
    /// one element on a line
    #[arg(long = "output", short = 'o', global = true, value_name = "FORM", value_enum, conflicts_with = "json")]
    pub form: Option<Format>,
    /// Short for `--output json`
    #[arg(long, global = true)]
    pub json: bool,
    /// Do not ask before what loses something: everything, or only what is named
    #[arg(
        long,
        short,
        global = true,
        value_name = "WHAT",
        value_enum,
        num_args = 0..=1,
        require_equals = true,
        value_delimiter = ',',
        default_missing_value = "all"
    )]
    pub yes: Vec<Consent>,
    /// Server to talk to [default: the one running on the data directory, else http://127.0.0.1:3000]
    #[arg(long, global = true, value_name = "URL", env = "TINE_SERVER", hide_env_values = true)]
    pub server: Option<String>,
    /// Data directory of the local server [default: ~/.local/share/tine]
    #[arg(long, global = true, value_name = "DIR", env = "TINE_DATA_DIR", hide_env_values = true)]
    pub data_dir: Option<PathBuf>,
    /// Identity token to use instead of the saved one
    #[arg(long, global = true, value_name = "TOKEN", env = "TINE_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// File with the saved tokens [default: ~/.config/tine/credentials.json]
    #[arg(long, global = true, value_name = "FILE", env = "TINE_CREDENTIALS", hide_env_values = true)]
    pub credentials: Option<PathBuf>,
    /// Settings file to read instead of looking for `tine.toml`
    #[arg(long, global = true, value_name = "FILE", env = "TINE_CONFIG", hide_env_values = true)]
    pub config: Option<PathBuf>,
    /// Get a new identity from the server and save it in place of the old one
    #[arg(long, global = true)]
    pub new_identity: bool,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a starter project: a module, a page and a test
    Init(InitArgs),
    /// Run a project while you write it: a server that publishes on every save
    Dev(DevArgs),
    /// Run a server
    Serve(ServeArgs),
    /// Show what Tine does: a live market, forked into several futures, killed and restarted
    #[command(after_help = "Examples:\n  tine demo\n  tine demo --once --json")]
    Demo(DemoArgs),
    /// Create or update a database from a module
    Publish(PublishArgs),
    /// Call a reducer or procedure
    Call(CallArgs),
    /// Run one SQL statement
    Sql(SqlArgs),
    /// Show the rows of queries and every later change of them
    Subscribe(SubscribeArgs),
    /// List what happened: commits with their calls
    History(HistoryArgs),
    /// Run recorded calls again and check that they do what was recorded
    Verify(VerifyArgs),
    /// Run recorded calls again on a fork, also with other code, and compare
    Replay(ReplayArgs),
    /// Show a module's log
    Logs(LogsArgs),
    /// Show the tables and functions of a database
    Describe(DescribeArgs),
    /// Write typed client code for a module
    Generate(GenerateArgs),
    /// List your databases and their forks
    #[command(after_help = "Examples:\n  tine list\n  tine list --json --server http://127.0.0.1:3000")]
    List,
    /// Delete a database, or one fork of it
    Delete(DeleteArgs),
    /// Make, list, draw, show, reset, rename and delete forks
    Fork(ForkArgs),
    /// Serve five Merkle trees with blocks, forks and proofs to local programs
    WorldState(Box<WorldStateArgs>),
    /// Stand in for the program `aztec-wsdb`: takes its arguments and answers its clients
    AztecWsdb(AztecWsdbArgs),
    /// Show or change who you are at a server
    Identity(IdentityArgs),
    /// Show the settings and where each comes from
    Config(ConfigArgs),
    /// Copy a data directory, while a server uses it or not
    Backup(BackupArgs),
    /// Make a data directory of a backup
    Restore(RestoreArgs),
    /// Check, compare and generate code of schemas of local services
    Idl(IdlArgs),
    /// Check stores, show what they consist of, or print what is in them
    Store(StoreArgs),
    /// Look for what is wrong with this installation and its data
    Doctor(DoctorArgs),
    /// Tell what an error code means and what to do about it
    Explain(ExplainArgs),
    /// Print the completions of a shell
    Completions(CompletionsArgs),
    /// Show the version of this program
    #[command(after_help = "Examples:\n  tine version\n  tine version --json")]
    Version,
}

/// `tine serve`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tine serve
  tine serve --listen 127.0.0.1:0 --data-dir ./data
  TINE_LISTEN=0.0.0.0:3000 tine serve
  tine serve --ipc /run/user/1000/tine.shm --ipc /run/user/1000/tine.sock

The first line of the output names the address, also when port 0 was asked for. SIGINT and SIGTERM
end the server in order; a second one ends it at once.")]
pub struct ServeArgs {
    /// Address and port to listen on; port 0 takes any free one [default: 127.0.0.1:3000]
    #[arg(long, value_name = "ADDR:PORT", env = "TINE_LISTEN", hide_env_values = true)]
    pub listen: Option<String>,
    /// Bucket for the images of databases, such as s3://bucket/folder; it is remembered in the data directory [default: the data
    /// directory]. Credentials come from the variables of the provider's own tools (AWS_*, GOOGLE_*, AZURE_*)
    #[arg(long, value_name = "URL", env = "TINE_IMAGES", hide_env_values = true)]
    pub images: Option<String>,
    /// Let every identity publish new databases, not only those that know the local admin token
    #[arg(
        long,
        env = "TINE_OPEN_PUBLISH",
        hide_env_values = true,
        value_parser = clap::builder::FalseyValueParser::new()
    )]
    pub open_publish: bool,
    /// Do not record calls that failed or changed nothing
    #[arg(long)]
    pub no_call_log: bool,
    /// Cores to size thread pools for [default: what the cgroup quota and the affinity mask allow]
    #[arg(long, value_name = "N", env = "TINE_CORES", hide_env_values = true)]
    pub cores: Option<std::num::NonZeroUsize>,
    /// Keep each lane thread on a core of its own
    #[arg(
        long,
        env = "TINE_PIN_CORES",
        hide_env_values = true,
        value_parser = clap::builder::FalseyValueParser::new()
    )]
    pub pin_cores: bool,
    /// Serve programs on this machine at this path: `*.sock` for a Unix socket, `*.shm` for shared memory; may be repeated
    #[arg(
        long,
        value_name = "PATH",
        env = "TINE_IPC",
        value_delimiter = ',',
        hide_env_values = true,
        value_parser = ipc_path
    )]
    pub ipc: Vec<PathBuf>,
    /// Folder of files to serve below `/app/` beside the API; they are read once, at the start
    #[arg(long = "static", value_name = "DIR")]
    pub static_dir: Option<PathBuf>,
    /// Issuer whose tokens are accepted beside the server's own, such as https://accounts.example; may be repeated
    #[arg(
        long = "trusted-issuer",
        value_name = "URL",
        env = "TINE_TRUSTED_ISSUERS",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub trusted_issuers: Vec<String>,
    /// Place that procedures may send HTTP requests to: [http://|https://]HOST[:PORT], where HOST may be *.NAME or *; may be repeated
    /// [default: none]
    #[arg(
        long = "allow-http",
        value_name = "RULE",
        env = "TINE_ALLOW_HTTP",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub allow_http: Vec<tine_host::HttpRule>,
    /// Where modules run that were published without `--isolation`: `process` or `in-process`
    #[arg(long, value_name = "MODE", env = "TINE_ISOLATION", hide_env_values = true, default_value_t)]
    pub isolation: tine_host::IsolationMode,
    #[command(flatten)]
    pub log: crate::commands::logging::LogArgs,
}

/// `tine publish`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tine publish quickstart
  tine publish quickstart ./server/src/index.ts
  tine publish quickstart@exp1 ./server     (that fork only)
  tine publish quickstart --dry-run
  tine publish quickstart --clear --yes=clear

The data is kept: tables, indexes, columns with a default value behind the last one, reducers and so on may be
added. A module that the data does not fit is refused with the reasons, and one that connected clients could not
cope with asks first (--yes=break-clients).")]
pub struct PublishArgs {
    /// Name of the database, or `name@fork`
    #[arg(default_value = HERE)]
    pub database: String,
    /// A .ts or .js file, or a folder with src/index.ts or index.ts in it
    #[arg(default_value = ".")]
    pub path: PathBuf,
    /// Only tell what would change; exit status 1 when the data does not fit
    #[arg(long)]
    pub dry_run: bool,
    /// Give up all data of the database or fork and start over; forks made from it stay
    #[arg(long, conflicts_with = "dry_run")]
    pub clear: bool,
    /// Where the module runs from now on: `process` gives each instance a locked-in process of its own, `in-process` is the fastest
    /// [default: as before, or what the server was started with]; forks inherit it
    #[arg(long, value_name = "MODE", conflicts_with = "dry_run")]
    pub isolation: Option<tine_host::IsolationMode>,
}

/// `tine call`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tine call quickstart add Ada 36
  tine call quickstart add --args '{\"name\": \"Ada\", \"age\": 36}'
  tine call quickstart move '{\"x\": 1.5, \"y\": 2}' '[1, 2]'
  echo '[\"Ada\", 36]' | tine call quickstart add --args -
  tine call quickstart add Ada 36 --dry-run

Each argument is JSON; one that is not JSON is taken as a string. A string of digits needs quotes:
'\"36\"'.")]
pub struct CallArgs {
    /// Name or identity of the database, or `name@fork`
    pub database: String,
    /// Reducer or procedure
    pub function: String,
    /// Arguments in order, each as JSON
    #[arg(value_name = "ARGUMENT", conflicts_with = "args", allow_negative_numbers = true)]
    pub arguments: Vec<String>,
    /// All arguments at once: a JSON array, an object by parameter name, or `-` to read it from standard input
    #[arg(long, value_name = "JSON")]
    pub args: Option<String>,
    /// Only show the rows that a reducer would change
    #[arg(long)]
    pub dry_run: bool,
}

/// `tine sql`
#[derive(Debug, Args)]
#[command(
    after_help = "\
Examples:
  tine sql quickstart 'SELECT * FROM person'
  tine sql quickstart@exp1 'SELECT COUNT(*) AS n FROM person' --json
  tine sql quickstart 'SELECT * FROM person' --at 2026-11-16T08:00:00Z
  tine sql 'SELECT * FROM person'     (of the project's database)",
    allow_missing_positional = true
)]
pub struct SqlArgs {
    /// Name or identity of the database, or `name@fork`
    #[arg(default_value = HERE)]
    pub database: String,
    /// The statement
    pub statement: String,
    /// Ask an older version: its LSN, or the last one at a time
    #[arg(long, value_name = "LSN|TIME", value_parser = fork_point)]
    pub at: Option<ForkPoint>,
}

/// `tine subscribe`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tine subscribe quickstart 'SELECT * FROM person WHERE age > 30'
  tine subscribe quickstart --json | jq .row
  tine subscribe quickstart --changes 10 --timeout-s 60

Marks: = a row at the start, + inserted, - deleted, ~ updated, ! an event. With --json every line is
{\"op\": \"initial|insert|delete|update|event\", \"table\", \"row\", \"old\"?}, and one {\"op\": \"applied\", \"rows\"} after the
initial rows. Ctrl-C ends it with status 0.")]
pub struct SubscribeArgs {
    /// Name or identity of the database, or `name@fork`
    #[arg(default_value = HERE)]
    pub database: String,
    /// Queries; without one, every public table
    pub queries: Vec<String>,
    /// End after this many changed rows
    #[arg(long, value_name = "N")]
    pub changes: Option<u64>,
    /// End after this many seconds
    #[arg(long, value_name = "SECONDS")]
    pub timeout_s: Option<u64>,
    /// Show changes as soon as they are committed, before they are on disk
    #[arg(long)]
    pub unconfirmed: bool,
}

/// `tine logs`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tine logs quickstart
  tine logs quickstart -n 20 --follow
  tine logs quickstart --json")]
pub struct LogsArgs {
    /// Name or identity of the database, or `name@fork`
    #[arg(default_value = HERE)]
    pub database: String,
    /// How many of the last lines
    #[arg(long, short = 'n', value_name = "N", default_value_t = 200)]
    pub lines: u32,
    /// Go on with every new line
    #[arg(long, short)]
    pub follow: bool,
}

/// `tine describe`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tine describe quickstart
  tine describe quickstart person
  tine describe quickstart --json     (the whole module definition, as SATS-JSON)")]
pub struct DescribeArgs {
    /// Name or identity of the database, or `name@fork`
    #[arg(default_value = HERE)]
    pub database: String,
    /// Only this table, reducer or procedure
    pub name: Option<String>,
}

/// `tine delete`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tine delete quickstart
  tine delete quickstart --forks --yes
  tine delete quickstart@exp1 --yes")]
pub struct DeleteArgs {
    /// Name or identity of the database, or `name@fork` to delete that fork only
    pub database: String,
    /// Also when the database has forks besides `main`
    #[arg(long)]
    pub forks: bool,
}

/// `tine fork`
#[derive(Debug, Args)]
pub struct ForkArgs {
    /// What to do with forks.
    #[command(subcommand)]
    pub command: ForkCommand,
}

/// Verbs of `tine fork`.
#[derive(Debug, Subcommand)]
pub enum ForkCommand {
    /// Fork a database, or a fork, as it is now or as it was
    #[command(after_help = "\
Examples:
  tine fork create quickstart exp1
  tine fork create quickstart@exp1 exp2 --ephemeral
  tine fork create quickstart before --at 1234
  tine fork create quickstart monday --at 2026-11-16T08:00:00Z --ttl 2h

Schedules are paused on a new fork, and its module does not hear of the parent's clients, unless asked for.")]
    Create {
        /// Name or identity of the database, or `name@fork`
        database: String,
        /// Name of the new fork
        name: String,
        /// Keep it in memory only: gone when the server ends
        #[arg(long)]
        ephemeral: bool,
        /// Start from an older version: its LSN, or the last one at a time
        #[arg(long, value_name = "LSN|TIME", value_parser = fork_point)]
        at: Option<ForkPoint>,
        /// Delete it by itself after so long, such as 90s, 10m, 2h or 7d, connected clients or not
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        ttl: Option<Duration>,
        /// Let its schedules run
        #[arg(long)]
        resume_schedules: bool,
        /// Run the module's disconnect hook on it for every client that is connected to the parent
        #[arg(long, conflicts_with = "at")]
        disconnect_clients: bool,
    },
    /// List the forks of a database
    #[command(after_help = "Examples:\n  tine fork list quickstart\n  tine fork list quickstart --json")]
    List {
        /// Name or identity of the database
        #[arg(default_value = HERE)]
        database: String,
    },
    /// Draw the forks of a database as a tree
    #[command(after_help = "Examples:\n  tine fork tree quickstart")]
    Tree {
        /// Name or identity of the database
        #[arg(default_value = HERE)]
        database: String,
    },
    /// Move a fork's name to another version; connections to the old one are closed
    #[command(after_help = "\
Examples:
  tine fork reset quickstart@exp1 --at 1234
  tine fork reset quickstart@exp1 --from main
  tine fork reset quickstart --from winner --yes=clear     (main becomes what winner is)")]
    Reset {
        /// The fork, as `name@fork`; a bare name is its main
        fork: String,
        /// Another fork of the database, whose version it becomes
        #[arg(long, value_name = "FORK")]
        from: Option<String>,
        /// The version: its LSN, or the last one at a time [default: the newest of --from]
        #[arg(long, value_name = "LSN|TIME", value_parser = fork_point, required_unless_present = "from")]
        at: Option<ForkPoint>,
    },
    /// Let the schedules of a fork run; what is overdue runs once
    #[command(after_help = "Examples:\n  tine fork resume quickstart@exp1")]
    Resume {
        /// The fork, as `name@fork`
        fork: String,
    },
    /// Show one fork
    #[command(after_help = "Examples:\n  tine fork show quickstart@exp1\n  tine fork show quickstart     (its main)")]
    Show {
        /// The fork, as `name@fork`
        fork: String,
    },
    /// Give a fork another name; connections to it stay
    #[command(after_help = "Examples:\n  tine fork rename quickstart@exp1 winner")]
    Rename {
        /// The fork, as `name@fork`
        fork: String,
        /// The new name
        name: String,
    },
    /// Delete a fork; forks made from it stay
    #[command(after_help = "Examples:\n  tine fork delete quickstart@exp1 --yes")]
    Delete {
        /// The fork, as `name@fork`
        fork: String,
    },
}

impl Command {
    /// The arguments that name a database or fork, to be completed from the project's settings.
    pub fn databases(&mut self) -> Vec<&mut String> {
        match self {
            Command::Publish(args) => vec![&mut args.database],
            Command::Call(args) => vec![&mut args.database],
            Command::Sql(args) => vec![&mut args.database],
            Command::Subscribe(args) => vec![&mut args.database],
            Command::History(args) => vec![&mut args.database],
            Command::Verify(args) => vec![&mut args.database],
            Command::Replay(args) => vec![&mut args.database],
            Command::Logs(args) => vec![&mut args.database],
            Command::Describe(args) => vec![&mut args.database],
            Command::Delete(args) => vec![&mut args.database],
            Command::Fork(args) => args.command.databases(),
            _ => Vec::new(),
        }
    }
}

impl ForkCommand {
    fn databases(&mut self) -> Vec<&mut String> {
        match self {
            ForkCommand::Create { database, .. } | ForkCommand::List { database } | ForkCommand::Tree { database } => {
                vec![database]
            }
            ForkCommand::Show { fork }
            | ForkCommand::Reset { fork, .. }
            | ForkCommand::Resume { fork }
            | ForkCommand::Rename { fork, .. }
            | ForkCommand::Delete { fork } => vec![fork],
        }
    }
}

/// A path for local programs.
pub(crate) fn ipc_path(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    tine_server::check_path(&path).map(|()| path)
}

/// An LSN, or a time in the form of RFC 3339.
fn fork_point(text: &str) -> Result<ForkPoint, String> {
    if let Ok(lsn) = text.parse() {
        return Ok(ForkPoint::Lsn(lsn));
    }
    match Timestamp::from_rfc3339(text) {
        Ok(_) => Ok(ForkPoint::Time(text.to_owned())),
        Err(_) => Err("expected an LSN such as 1234, or a time such as 2026-11-21T10:00:00Z".to_owned()),
    }
}

/// A duration in one unit.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let unit_ms = match &text[digits..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => 0,
    };
    let number: Option<u64> = text[..digits].parse().ok();
    let milliseconds = number.and_then(|number| number.checked_mul(unit_ms)).filter(|ms| *ms > 0);
    milliseconds.map(Duration::from_millis).ok_or_else(|| "expected a duration such as 90s, 10m, 2h or 7d".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::{Cli, ForkPoint, duration, fork_point};

    #[test]
    fn points_and_durations_are_read() {
        assert_eq!(fork_point("1234"), Ok(ForkPoint::Lsn(1234)));
        let time = "2026-11-21T10:00:00Z";
        assert_eq!(fork_point(time), Ok(ForkPoint::Time(time.to_owned())));
        for wrong in ["", "-1", "yesterday", "2026-11", "12x"] {
            assert!(fork_point(wrong).is_err(), "{wrong}");
        }
        for (text, milliseconds) in [("500ms", 500), ("90s", 90_000), ("10m", 600_000), ("2h", 7_200_000)] {
            assert_eq!(duration(text).map(|duration| duration.as_millis()), Ok(milliseconds), "{text}");
        }
        for wrong in ["", "10", "m", "0s", "-5m", "1.5h", "99999999999999999999s", "10 m"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_has_examples() {
        fn check(command: &clap::Command) {
            for verb in command.get_subcommands() {
                if verb.has_subcommands() {
                    check(verb);
                } else if verb.get_name() != "help" {
                    let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
                    assert!(help.contains("Examples:"), "`{}` has no examples", verb.get_name());
                }
            }
        }
        check(&Cli::command());
    }
}
