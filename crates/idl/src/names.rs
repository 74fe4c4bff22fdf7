//! Names in the conventions of the target languages.

/// Splits a name into lower-case words: at underscores, before capitals, and before the last capital of
/// a run of them (`treeID2` is `tree`, `id2`; `HTTPPort` is `http`, `port`).
fn words(name: &str) -> Vec<String> {
    let characters: Vec<char> = name.chars().collect();
    let mut words: Vec<String> = Vec::new();
    let mut starts_word = true;
    for (index, &character) in characters.iter().enumerate() {
        if character == '_' {
            starts_word = true;
            continue;
        }
        let before = index.checked_sub(1).map(|before| characters[before]);
        let after = characters.get(index + 1);
        let follows_lower = before.is_some_and(|before| before.is_ascii_lowercase() || before.is_ascii_digit());
        let ends_run = before.is_some_and(|before| before.is_ascii_uppercase())
            && after.is_some_and(|after| after.is_ascii_lowercase());
        if starts_word || (character.is_ascii_uppercase() && (follows_lower || ends_run)) {
            words.push(String::new());
            starts_word = false;
        }
        words.last_mut().expect("a word was started").push(character.to_ascii_lowercase());
    }
    words
}

/// `treeId` as `tree_id`.
pub fn snake_case(name: &str) -> String {
    words(name).join("_")
}

/// `tree_id` as `treeId`.
pub fn camel_case(name: &str) -> String {
    let mut words = words(name).into_iter();
    words.next().into_iter().chain(words.map(capitalised)).collect()
}

/// `tree_id` as `TreeId`; a name that starts with a capital and has no underscore stays as it is.
pub fn pascal_case(name: &str) -> String {
    if name.starts_with(|first: char| first.is_ascii_uppercase()) && !name.contains('_') {
        return name.to_owned();
    }
    words(name).into_iter().map(capitalised).collect()
}

fn capitalised(word: String) -> String {
    let mut characters = word.chars();
    characters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(characters).collect()
}

/// The language in which a field of that name, in snake case or camel case, could not be written.
///
/// Python is not among them: its generator adds an underscore instead, so that schemas that were
/// written for languages without `from` and `in` stay valid.
pub(crate) fn reserved_in(projected: &str) -> Option<&'static str> {
    let lists = [("Rust", RUST), ("C++", CPP), ("TypeScript", TYPESCRIPT), ("Zig", ZIG)];
    lists.into_iter().find(|(_, list)| list.split_whitespace().any(|word| word == projected)).map(|(name, _)| name)
}

/// Whether a name is taken in the language; generators add an underscore to such names of methods.
pub(crate) fn is_reserved(language: crate::Language, name: &str) -> bool {
    let list = match language {
        crate::Language::Rust => RUST,
        crate::Language::TypeScript => TYPESCRIPT,
        crate::Language::Cpp => CPP,
        crate::Language::Zig => ZIG,
        crate::Language::Python => PYTHON,
    };
    list.split_whitespace().any(|word| word == name)
}

const RUST: &str = "as async await box break const continue crate do dyn else enum extern false final fn for gen if impl in \
    let loop macro match mod move mut override priv pub ref return self static struct super trait true try type typeof \
    unsafe unsized use virtual where while yield abstract become";

const CPP: &str = "alignas alignof and and_eq asm auto bitand bitor bool break case catch char char8_t char16_t char32_t \
    class compl concept const consteval constexpr constinit const_cast continue co_await co_return co_yield decltype \
    default delete do double dynamic_cast else enum explicit export extern false float for friend goto if inline int \
    long mutable namespace new noexcept not not_eq nullptr operator or or_eq private protected public register \
    reinterpret_cast requires return short signed sizeof static static_assert static_cast struct switch template this \
    thread_local throw true try typedef typeid typename union unsigned using virtual void volatile wchar_t while xor \
    xor_eq";

const TYPESCRIPT: &str = "await break case catch class const continue debugger default delete do else enum export extends \
    false finally for function if implements import in instanceof interface let new null package private protected \
    public return static super switch this throw true try typeof undefined var void while with yield arguments eval";

const ZIG: &str = "addrspace align allowzero and anyframe anytype asm break callconv catch comptime const continue defer \
    else enum errdefer error export extern fn for if inline linksection noalias noinline nosuspend opaque or orelse \
    packed pub resume return struct suspend switch test threadlocal try union unreachable usingnamespace var volatile \
    while type void bool null undefined true false anyerror noreturn";

const PYTHON: &str = "False None True and as assert async await break class continue def del elif else except finally for \
    from global if import in is lambda nonlocal not or pass raise return try while with yield self";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversions() {
        for (name, snake, camel, pascal) in [
            ("treeId", "tree_id", "treeId", "TreeId"),
            ("tree_id", "tree_id", "treeId", "TreeId"),
            ("TreeID", "tree_id", "treeId", "TreeID"),
            ("HTTPPort", "http_port", "httpPort", "HTTPPort"),
            ("a", "a", "a", "A"),
            ("block2Hash", "block2_hash", "block2Hash", "Block2Hash"),
            ("x_2", "x_2", "x2", "X2"),
            ("_lead", "lead", "lead", "Lead"),
        ] {
            assert_eq!((snake_case(name).as_str(), camel_case(name).as_str()), (snake, camel), "{name}");
            assert_eq!(pascal_case(name), pascal, "{name}");
        }
    }

    #[test]
    fn reserved_words() {
        for (word, language) in [
            ("match", Some("Rust")),
            ("template", Some("C++")),
            ("function", Some("TypeScript")),
            ("orelse", Some("Zig")),
            ("from", None),
            ("data", None),
        ] {
            assert_eq!(reserved_in(word), language, "{word}");
        }
        assert!(is_reserved(crate::Language::Rust, "match"));
    }
}
