//! TypeScript to JavaScript, and what the result imports.
//!
//! Types are removed, enums and parameter properties are rewritten, nothing else is changed: no checking of types and no
//! lowering of syntax. Plain JavaScript is parsed for its errors and imports and then run as it is.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use oxc_allocator::Allocator;
use oxc_ast::ast::{ImportDeclarationSpecifier, ModuleExportName, Program, Statement, StringLiteral};
use oxc_codegen::{Codegen, CodegenOptions};
use oxc_parser::Parser;
use oxc_semantic::SemanticBuilder;
use oxc_span::SourceType;
use oxc_transformer::{TransformOptions, Transformer};

use super::nesting;
use super::positions::{Mapping, Positions};
use crate::diagnostic::Diagnostic;

/// One file as JavaScript.
pub(crate) struct Stripped {
    /// The JavaScript to run.
    pub code: String,
    /// From `code` to the source.
    pub positions: Positions,
    /// What `code` imports; imports of types only are gone.
    pub imports: Vec<Import>,
}

/// One `import ... from` or `export ... from`.
pub(crate) struct Import {
    /// What is written between the quotes.
    pub specifier: String,
    /// Byte offset of the opening quote in the source.
    pub offset: usize,
    /// The names imported, each with its byte offset in the source; none for `*`.
    pub names: Vec<(String, usize)>,
}

/// Whether a file holds TypeScript, by its name; `None` if it cannot be part of a module.
fn source_type(path: &str) -> Option<SourceType> {
    match path.rsplit_once('.')?.1 {
        "ts" | "mts" => Some(SourceType::ts()),
        "js" | "mjs" => Some(SourceType::mjs()),
        _ => None,
    }
}

/// Whether this process starts no threads, and has a large enough stack instead.
static ON_CALLERS_STACK: AtomicBool = AtomicBool::new(false);

/// From now on files are parsed on the stack of whoever asks, which must be tens of MiB.
pub(crate) fn parse_on_callers_stack() {
    ON_CALLERS_STACK.store(true, Ordering::Relaxed);
}

/// Turns one file into JavaScript.
///
/// # Errors
/// The first error of the parser or of the transformation, at its place; or text that nests too deeply to be parsed.
pub(crate) fn strip(path: &str, source: &str) -> Result<Stripped, Diagnostic> {
    let source_type = source_type(path)
        .ok_or_else(|| Diagnostic::bare(format!("{path}: a module file ends in .ts, .mts, .js or .mjs")))?;
    nesting::check(source)
        .map_err(|deep| Diagnostic::at_offset("the code nests too deeply", path, source, deep.offset))?;
    if ON_CALLERS_STACK.load(Ordering::Relaxed) {
        return strip_checked(path, source, source_type);
    }
    // The caller's stack is of unknown size; this one fits whatever passed the check.
    let parser = std::thread::Builder::new().name("tine-parser".to_owned()).stack_size(nesting::PARSER_STACK_BYTES);
    std::thread::scope(|scope| {
        let running = parser.spawn_scoped(scope, || strip_checked(path, source, source_type));
        let running = running.map_err(|error| Diagnostic::bare(format!("{path}: no thread to parse it: {error}")))?;
        running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn strip_checked(path: &str, source: &str, source_type: SourceType) -> Result<Stripped, Diagnostic> {
    let allocator = Allocator::default();
    let parsed = Parser::new(&allocator, source, source_type).parse();
    if let Some(error) = parsed.diagnostics.errors().next() {
        return Err(diagnostic(path, source, error));
    }
    if let Some(dynamic) = parsed.module_record.dynamic_imports.first() {
        return Err(Diagnostic::at_offset(
            "import() is not supported, use an import statement",
            path,
            source,
            dynamic.span.start as usize,
        ));
    }
    let mut program = parsed.program;
    let semantic = SemanticBuilder::new().with_check_syntax_error(true).with_enum_eval(true).build(&program);
    if let Some(error) = semantic.diagnostics.errors().next() {
        return Err(diagnostic(path, source, error));
    }
    if !source_type.is_typescript() {
        let imports = imports_of(&program);
        return Ok(Stripped { code: source.to_owned(), positions: Positions::Same, imports });
    }
    let scoping = semantic.semantic.into_scoping();
    let options = TransformOptions::default();
    let transformed = Transformer::new(&allocator, Path::new(path), &options).build_with_scoping(scoping, &mut program);
    if let Some(error) = transformed.diagnostics.errors().next() {
        return Err(diagnostic(path, source, error));
    }
    let imports = imports_of(&program);
    let options = CodegenOptions { source_map_path: Some(path.into()), ..CodegenOptions::default() };
    let printed = Codegen::new().with_options(options).build(&program);
    let mappings = printed.map.iter().flat_map(|map| map.get_tokens()).map(|token| Mapping {
        generated_line: token.get_dst_line(),
        generated_column: token.get_dst_col(),
        source_line: token.get_src_line(),
        source_column: token.get_src_col(),
    });
    Ok(Stripped { positions: Positions::from_mappings(mappings.collect()), code: printed.code, imports })
}

/// The imports and re-exports of a program, in order.
fn imports_of(program: &Program<'_>) -> Vec<Import> {
    let mut imports = Vec::new();
    let mut push = |source: &StringLiteral<'_>, names: Vec<(String, usize)>| {
        imports.push(Import { specifier: source.value.to_string(), offset: source.span.start as usize, names });
    };
    for statement in &program.body {
        match statement {
            Statement::ImportDeclaration(import) => {
                let specifiers = import.specifiers.iter().flatten();
                push(&import.source, specifiers.filter_map(imported_name).collect());
            }
            Statement::ExportFromDeclaration(export) => {
                push(&export.source, export.specifiers.iter().map(|specifier| name_of(&specifier.local)).collect());
            }
            Statement::ExportAllDeclaration(export) => push(&export.source, Vec::new()),
            _ => {}
        }
    }
    imports
}

/// The exported name that an import specifier asks for; `None` for a namespace.
fn imported_name(specifier: &ImportDeclarationSpecifier<'_>) -> Option<(String, usize)> {
    match specifier {
        ImportDeclarationSpecifier::ImportSpecifier(named) => Some(name_of(&named.imported)),
        ImportDeclarationSpecifier::ImportDefaultSpecifier(default) => {
            Some(("default".to_owned(), default.span.start as usize))
        }
        ImportDeclarationSpecifier::ImportNamespaceSpecifier(_) => None,
    }
}

fn name_of(name: &ModuleExportName<'_>) -> (String, usize) {
    let span = match name {
        ModuleExportName::IdentifierName(name) => name.span,
        ModuleExportName::IdentifierReference(name) => name.span,
        ModuleExportName::StringLiteral(name) => name.span,
    };
    (name.name().to_string(), span.start as usize)
}

fn diagnostic(path: &str, source: &str, error: &oxc_diagnostics::OxcDiagnostic) -> Diagnostic {
    let mut message = error.message.to_string();
    if let Some(help) = &error.help {
        message.push_str(": ");
        message.push_str(help);
    }
    match error.labels.first() {
        Some(label) => Diagnostic::at_offset(message, path, source, label.offset() as usize),
        None => Diagnostic::bare(format!("{path}: {message}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_go_and_values_stay() {
        let source = "import { schema, type Infer } from 'tine:server';\n\
                      import { Row } from './rows';\n\
                      import type { Other } from './other';\n\
                      export * from './more';\n\
                      enum Kind { A = 1, B }\n\
                      export const x: number = schema as any satisfies unknown;\n\
                      export function f<T>(row: Row, kind = Kind.B): T { return row! as T; }\n";
        let stripped = strip("index.ts", source).expect("valid");
        assert!(!stripped.code.contains(": number") && !stripped.code.contains("satisfies"), "{}", stripped.code);
        assert!(stripped.code.contains("Kind"));
        let imports: Vec<&str> = stripped.imports.iter().map(|import| import.specifier.as_str()).collect();
        assert_eq!(imports, ["tine:server", "./more"]);
        assert_eq!(stripped.imports[0].names.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["schema"]);
    }

    #[test]
    fn javascript_is_left_alone() {
        let source = "import a, { b as c } from './x.js'\n  export const y = a + c // comment\n";
        let stripped = strip("index.js", source).expect("valid");
        assert_eq!(stripped.code, source);
        let names: Vec<&str> = stripped.imports[0].names.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["default", "b"]);
        assert_eq!(stripped.positions.source_of(2, 7), (2, 7));
    }

    #[test]
    fn positions_lead_back_to_the_source() {
        let source =
            "interface A {\n  x: number;\n}\n\nexport function f(a: A): number {\n  // why\n  return boom(a.x);\n}\n";
        let stripped = strip("index.ts", source).expect("valid");
        let (index, line) =
            stripped.code.lines().enumerate().find(|(_, line)| line.contains("boom")).expect("the call is printed");
        let column = line.find("boom").expect("found") + 1;
        assert_eq!(stripped.positions.source_of(index as u32 + 1, column as u32), (7, 10));
    }

    #[test]
    fn mistakes_are_placed() {
        for (path, source, line, words) in [
            ("a.ts", "const x = ;\n", 1, "Unexpected"),
            ("a.ts", "let a = 1;\nlet a = 2;\n", 1, "already been declared"),
            ("a.js", "const x: number = 1;\n", 1, ""),
            ("a.ts", "\nconst lazy = await import('./b');\n", 2, "import()"),
            ("a.ts", "export const a = <div/>;\n", 1, ""),
        ] {
            let Err(error) = strip(path, source) else { panic!("{source} must be refused") };
            let location = error.location.as_ref().expect("placed");
            assert_eq!((location.file.as_str(), location.line), (path, line), "{error}");
            assert!(error.message.contains(words), "{error}");
            assert!(error.excerpt.is_some());
        }
        assert!(strip("data.json", "{}").is_err());
    }
}
