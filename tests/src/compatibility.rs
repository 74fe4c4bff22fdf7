//! The application of `tests/compat`: its module, bundled as the SDK's tool chain does it and as it is written, and its client, with
//! bindings that `tine generate` wrote.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tine_module::SourceBundle;

use crate::command::{Ran, run_within, tine};
use crate::{npm, root};

/// How long each step of building may take.
const BUILDING: Duration = Duration::from_secs(120);

/// The client, built.
pub struct Application {
    /// The folder of the npm packages.
    pub npm: PathBuf,
    /// The module's bundle.
    pub module: PathBuf,
    /// The same module as it is written.
    pub source: SourceBundle,
    /// The folder of the client.
    pub client: PathBuf,
}

impl Application {
    /// Bundles the module and puts the client's sources where the packages are found.
    ///
    /// # Errors
    /// What is missing, in words.
    ///
    /// # Panics
    /// When it cannot be built.
    pub fn prepare() -> Result<Application, &'static str> {
        let npm = npm::folder()?;
        let sources = files(&root().join("tests/compat/module"));
        let mut files: Vec<(&str, &str)> = sources.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        files.sort_by_key(|(name, _)| *name != "index.ts");
        let module = npm::bundle(&npm, "club", &files);
        let client = npm.join("compat");
        std::fs::create_dir_all(&client).expect("the folder can be made");
        for (name, text) in self::files(&root().join("tests/compat/client")) {
            std::fs::write(client.join(name), text).expect("the file can be written");
        }
        let files = sources.iter().cloned().collect();
        let source = SourceBundle { entry: "index.ts".to_owned(), files };
        Ok(Application { npm, module, source, client })
    }

    /// Has `tine generate` write the bindings; `arguments` say from what.
    pub fn generate(&self, home: &Path, folder: &str, arguments: &[&str]) -> Ran {
        let mut command = tine(home);
        command.args(["generate", "--lang", "typescript", "--out-dir"]).arg(self.client.join(folder)).args(arguments);
        run_within(&mut command, BUILDING)
    }

    /// Checks client and bindings as strictly as TypeScript can.
    pub fn check(&self) -> Ran {
        let compiler = self.npm.join("node_modules/typescript/bin/tsc");
        run_within(npm::node(&self.npm).arg(compiler).arg("-p").arg(&self.client), BUILDING)
    }

    /// Bundles one of the client's files and returns where the bundle is.
    ///
    /// # Panics
    /// When it cannot be bundled.
    pub fn bundle(&self, entry: &str, output: &str, platform: &str) -> PathBuf {
        let output = self.client.join(output);
        let mut command = npm::node(&self.npm);
        command.arg("bundle_app.mjs").arg(self.client.join(entry)).arg(&output).arg(platform);
        run_within(&mut command, BUILDING).expect(0);
        output
    }
}

/// Name and text of the files in a folder.
fn files(folder: &Path) -> Vec<(String, String)> {
    let entries = std::fs::read_dir(folder).expect("the folder is there");
    entries
        .map(|entry| entry.expect("it can be read").path())
        .filter(|path| path.is_file())
        .map(|path| {
            let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
            (name, std::fs::read_to_string(&path).expect("it is text"))
        })
        .collect()
}
