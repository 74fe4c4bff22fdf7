//! A module compiled for the engine; shared by its instances.

use std::collections::{BTreeMap, HashMap};

use super::raw::Bytecode;
use crate::diagnostic::{Diagnostic, SourceLocation, StackFrame, excerpt};
use crate::source::map::SourceMap;
use crate::source::positions::Positions;

/// The most frames that a reported stack has; the engine records no more than this either way.
const STACK_FRAMES_MAX: usize = 64;

/// In a bundle, the function of the SDK that calls the user's: frames from there outward are the SDK's.
const OUTER_SDK_FUNCTION: &str = "__spacetimedb_end_short_backtrace";

/// Part of the paths of the SDK's own files in a bundle.
const SDK_PACKAGE: &str = "node_modules/spacetimedb/";

/// The files of a module by path.
pub(super) struct Program {
    pub(super) entry: String,
    pub(super) files: HashMap<String, CompiledFile>,
    /// What the files import of the built-in SDK; instances have nothing else of it to offer.
    pub(super) sdk_names: Vec<&'static str>,
    /// Where the text of the one file came from, if it was put together by a bundler.
    pub(super) map: Option<SourceMap>,
}

/// One file of a module.
pub(super) struct CompiledFile {
    pub(super) bytecode: Bytecode,
    pub(super) imports: BTreeMap<String, String>,
    pub(super) positions: Positions,
    pub(super) source: String,
}

impl Program {
    /// Bytes of bytecode.
    pub(super) fn bytecode_bytes(&self) -> usize {
        self.files.values().map(|file| file.bytecode.len()).sum()
    }

    /// The frames of an engine's stack trace that are in the user's files, in source positions. Frames of the SDK and of
    /// natives are left out.
    pub(super) fn frames(&self, stack: &str) -> Vec<StackFrame> {
        let lines = stack.lines().filter_map(split_frame);
        let frames =
            lines.take_while(|(function, _)| *function != OUTER_SDK_FUNCTION).filter_map(|(function, place)| {
                let (rest, column) = place.rsplit_once(':')?;
                let (file, line) = rest.rsplit_once(':')?;
                let location = self.location(file, line.parse().ok()?, column.parse().ok()?)?;
                let function = if function.starts_with('<') { String::new() } else { function.to_owned() };
                Some(StackFrame { function, location })
            });
        frames.take(STACK_FRAMES_MAX).collect()
    }

    /// The user's place that a place in the running code stands for; `None` for code that is not the user's.
    fn location(&self, file: &str, line: u32, column: u32) -> Option<SourceLocation> {
        let positions = &self.files.get(file)?.positions;
        if let Some(map) = self.map.as_ref().filter(|map| map.is_usable()) {
            return map.source_of(line, column).filter(|place| !place.file.contains(SDK_PACKAGE));
        }
        let (line, column) = positions.source_of(line, column);
        Some(SourceLocation { file: file.to_owned(), line, column })
    }

    /// The text of a file that [`Program::frames`] names.
    fn source(&self, file: &str) -> Option<&str> {
        let mapped = self.map.as_ref().and_then(|map| map.content(file));
        mapped.or_else(|| self.files.get(file).map(|file| &*file.source))
    }

    /// A message with the stack that led to it.
    pub(super) fn diagnostic(&self, message: String, stack: &str) -> Diagnostic {
        let mut diagnostic = Diagnostic::bare(message);
        diagnostic.stack = self.frames(stack);
        if let Some(frame) = diagnostic.stack.first() {
            let location = frame.location.clone();
            let source = self.source(&location.file);
            diagnostic.excerpt = source.and_then(|source| excerpt(source, location.line, location.column));
            diagnostic.location = Some(location);
        }
        diagnostic
    }
}

/// Function and place of a line such as `    at name (file:1:2)` or `    at file:1:2`.
pub(super) fn split_frame(line: &str) -> Option<(&str, &str)> {
    let frame = line.trim_start().strip_prefix("at ")?;
    match frame.rsplit_once(" (") {
        Some((function, place)) => Some((function, place.strip_suffix(')')?)),
        None => Some(("", frame)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_user_files_are_found() {
        let file = CompiledFile {
            bytecode: Bytecode::trusted(Vec::new()),
            imports: BTreeMap::new(),
            positions: Positions::Same,
            source: "one\ntwo\n".to_owned(),
        };
        let files = HashMap::from([("a (b).ts".to_owned(), file)]);
        let program = Program { entry: "a (b).ts".to_owned(), files, sdk_names: Vec::new(), map: None };
        let stack = "    at insert (native)\n    at f (tine:server:3:4)\n    at g (a (b).ts:2:3)\n    at <anonymous> (a (b).ts:1:1)\n    at a (b).ts:9:9x\nnonsense";
        let diagnostic = program.diagnostic("boom".to_owned(), stack);
        // The path with a parenthesis is ambiguous in the engine's format; what cannot be told is left out, not mixed up.
        assert!(diagnostic.stack.is_empty());
        let file = CompiledFile {
            positions: Positions::Same,
            source: "one\ntwo\n".to_owned(),
            imports: BTreeMap::new(),
            bytecode: Bytecode::trusted(Vec::new()),
        };
        let files = HashMap::from([("a.ts".to_owned(), file)]);
        let program = Program { entry: "a.ts".to_owned(), files, sdk_names: Vec::new(), map: None };
        let stack =
            "    at insert (native)\n    at f (tine:server:3:4)\n    at g (a.ts:2:3)\n    at <anonymous> (a.ts:1:1)\n";
        let diagnostic = program.diagnostic("boom".to_owned(), stack);
        assert_eq!(
            diagnostic.to_string(),
            "a.ts:2:3: boom\n  2 | two\n    |   ^\n    at g (a.ts:2:3)\n    at a.ts:1:1"
        );
    }
}
