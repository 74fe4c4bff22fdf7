//! Source maps of bundles: from a place in the bundle to the file it came from.
//!
//! A bundler writes the map behind the code, in a comment that can be larger than the code. The comment is cut off before the code
//! runs and read when an error, or a line of the log, first asks for a place. A map comes from whoever publishes: one that cannot
//! be read is as good as none.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use crate::diagnostic::SourceLocation;

/// What the comment begins with.
const COMMENT: &str = "//# sourceMappingURL=";

/// Most segments that are kept: some hundred times what a module has, and no more memory than its text may take.
const SEGMENTS_MAX: usize = 1 << 20;

/// A map, read when it is first used.
pub(crate) struct SourceMap {
    /// The whole text of the bundle.
    text: Arc<str>,
    /// Where the comment's URL begins.
    url: usize,
    read: OnceLock<Option<Map>>,
}

struct Map {
    /// Sorted by place in the bundle.
    segments: Vec<Segment>,
    sources: Vec<String>,
    contents: HashMap<String, String>,
}

/// From here to the next segment of the line, the code came from there. Lines and columns from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Segment {
    line: u32,
    column: u32,
    /// `None` for code that came from nowhere.
    source: Option<(u32, u32, u32)>,
}

/// The length of the code in front of a source map comment, and where the comment's URL begins. The comment is the last line.
pub(crate) fn split(text: &str) -> (usize, Option<usize>) {
    match text.rfind(COMMENT) {
        Some(start) if !text[start..].trim_end().contains('\n') => (start, Some(start + COMMENT.len())),
        _ => (text.len(), None),
    }
}

impl SourceMap {
    /// The map in the comment whose URL begins at `url`, see [`split`].
    pub(crate) fn new(text: Arc<str>, url: usize) -> SourceMap {
        SourceMap { text, url, read: OnceLock::new() }
    }

    fn map(&self) -> Option<&Map> {
        self.read.get_or_init(|| Map::read(self.text[self.url..].trim_end())).as_ref()
    }

    /// Whether there is a map and it can be read.
    pub(crate) fn is_usable(&self) -> bool {
        self.map().is_some()
    }

    /// The place that a place of the bundle came from, both from 1.
    pub(crate) fn source_of(&self, line: u32, column: u32) -> Option<SourceLocation> {
        let map = self.map()?;
        let (line, column) = (line.checked_sub(1)?, column.saturating_sub(1));
        let after = map.segments.partition_point(|segment| (segment.line, segment.column) <= (line, column));
        let before = after.checked_sub(1).map(|index| map.segments[index]).filter(|segment| segment.line == line);
        // Left of the first segment of a line is the indentation.
        let segment = before.or_else(|| map.segments.get(after).copied().filter(|segment| segment.line == line))?;
        let (source, line, column) = segment.source?;
        Some(SourceLocation { file: map.sources.get(source as usize)?.clone(), line: line + 1, column: column + 1 })
    }

    /// The text of a source file, if the map has it.
    pub(crate) fn content(&self, file: &str) -> Option<&str> {
        self.map()?.contents.get(file).map(String::as_str)
    }
}

impl Map {
    fn read(url: &str) -> Option<Map> {
        let (kind, data) = url.strip_prefix("data:application/json")?.split_once(',')?;
        if !kind.ends_with(";base64") {
            return None;
        }
        let mut json: Value = serde_json::from_slice(&decode_base64(data)?).ok()?;
        let sources: Vec<String> =
            json["sources"].as_array()?.iter().map(|name| normal(name.as_str().unwrap_or_default())).collect();
        let mut contents = HashMap::new();
        if let Value::Array(texts) = json["sourcesContent"].take() {
            for (name, text) in sources.iter().zip(texts) {
                if let Value::String(text) = text {
                    contents.insert(name.clone(), text);
                }
            }
        }
        let segments = decode_mappings(json["mappings"].as_str()?)?;
        Some(Map { segments, sources, contents })
    }
}

/// A path without the way from the bundle's folder up to the project's.
fn normal(path: &str) -> String {
    let mut rest = path;
    while let Some(shorter) = rest.strip_prefix("../").or_else(|| rest.strip_prefix("./")) {
        rest = shorter;
    }
    rest.to_owned()
}

/// The value of a base64 digit.
fn digit(byte: u8) -> Option<u32> {
    Some(u32::from(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    }))
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=').as_bytes();
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for group in text.chunks(4) {
        let mut bits = 0;
        for byte in group {
            bits = bits << 6 | digit(*byte)?;
        }
        bits <<= 6 * (4 - group.len());
        out.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    Some(out)
}

/// Reads the segments: lines end with `;`, segments with `,`, and each is one, four or five numbers that count on from the last.
fn decode_mappings(text: &str) -> Option<Vec<Segment>> {
    let mut segments = Vec::new();
    let (mut source, mut source_line, mut source_column) = (0, 0, 0);
    for (line, text) in text.split(';').enumerate() {
        let line = u32::try_from(line).ok()?;
        let mut column = 0;
        for text in text.split(',').filter(|text| !text.is_empty()) {
            let mut numbers = [0; 5];
            let count = decode_numbers(text.as_bytes(), &mut numbers)?;
            column = add(column, numbers[0])?;
            let mut segment = Segment { line, column, source: None };
            if count >= 4 {
                source = add(source, numbers[1])?;
                source_line = add(source_line, numbers[2])?;
                source_column = add(source_column, numbers[3])?;
                segment.source = Some((source, source_line, source_column));
            }
            segments.push(segment);
            if segments.len() > SEGMENTS_MAX {
                return None;
            }
        }
    }
    segments.sort_unstable();
    Some(segments)
}

/// A position moved on or back; `None` if it leaves the range of positions, with room to count from 1.
fn add(position: u32, change: i32) -> Option<u32> {
    position.checked_add_signed(change).filter(|position| *position < u32::MAX)
}

/// Reads up to five numbers of variable length: five bits a digit, the lowest first, the sixth says that more follow; the lowest bit
/// of a number is its sign. Returns how many there are.
fn decode_numbers(text: &[u8], numbers: &mut [i32; 5]) -> Option<usize> {
    let (mut count, mut shift, mut bits) = (0, 0, 0u64);
    for byte in text {
        let digit = digit(*byte)?;
        bits |= u64::from(digit & 31) << shift;
        if digit & 32 != 0 {
            shift += 5;
            if shift > 30 {
                return None;
            }
            continue;
        }
        let magnitude = i32::try_from(bits >> 1).ok()?;
        *numbers.get_mut(count)? = if bits & 1 == 1 { -magnitude } else { magnitude };
        (count, shift, bits) = (count + 1, 0, 0);
    }
    (shift == 0 && matches!(count, 1 | 4 | 5)).then_some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode_base64(bytes: &[u8]) -> String {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut out = String::new();
        for group in bytes.chunks(3) {
            let mut word = [0; 4];
            word[1..1 + group.len()].copy_from_slice(group);
            let bits = u32::from_be_bytes(word);
            for place in 0..4 {
                let shown = place <= group.len();
                out.push(if shown { DIGITS[(bits >> (18 - 6 * place) & 63) as usize] as char } else { '=' });
            }
        }
        out
    }

    fn map_of(json: &str) -> SourceMap {
        let text = format!(
            "code();\n{COMMENT}data:application/json;charset=utf-8;base64,{}\n",
            encode_base64(json.as_bytes())
        );
        let (code, url) = split(&text);
        assert_eq!(&text[..code], "code();\n");
        SourceMap::new(text.as_str().into(), url.expect("a comment"))
    }

    #[test]
    fn places_lead_back_to_the_sources() {
        // Line 1: column 0 -> b.ts 1:1, column 4 -> nowhere. Line 3: column 2 -> src/a.ts 6:3, column 8 -> src/a.ts 6:1.
        let map = map_of(
            r#"{"version":3,"sources":["../src/a.ts","../../b.ts"],"sourcesContent":["text of a",null],"mappings":"ACAA,I;;EDKE,MAAF"}"#,
        );
        assert!(map.is_usable());
        for (line, column, expected) in [
            (1, 1, Some("b.ts:1:1")),
            (1, 4, Some("b.ts:1:1")),
            (1, 5, None),
            (2, 1, None),
            (3, 1, Some("src/a.ts:6:3")),
            (3, 8, Some("src/a.ts:6:3")),
            (3, 90, Some("src/a.ts:6:1")),
            (4, 1, None),
            (0, 0, None),
        ] {
            let found = map.source_of(line, column).map(|place| place.to_string());
            assert_eq!(found.as_deref(), expected, "{line}:{column}");
        }
        assert_eq!(map.content("src/a.ts"), Some("text of a"));
        assert_eq!(map.content("b.ts"), None);
    }

    #[test]
    fn a_map_that_cannot_be_read_is_none() {
        for json in [
            "",
            "[]",
            r#"{"sources":[],"mappings":"!"}"#,
            r#"{"sources":[],"mappings":"AA"}"#,
            r#"{"sources":[],"mappings":"D"}"#,
            r#"{"sources":[],"mappings":"g"}"#,
            r#"{"sources":[],"mappings":"gggggggggggggggB"}"#,
            r#"{"sources":[],"mappings":"AAAAAA"}"#,
            r#"{"mappings":"AAAA"}"#,
        ] {
            assert!(!map_of(json).is_usable(), "{json}");
        }
        let beyond = map_of(r#"{"sources":[],"mappings":"AAAA"}"#);
        assert!(beyond.is_usable() && beyond.source_of(1, 1).is_none(), "a source that is not there");
        for url in ["bundle.js.map", "data:application/json,{}", "data:application/json;base64,#"] {
            let text = format!("{COMMENT}{url}");
            assert!(!SourceMap::new(text.as_str().into(), COMMENT.len()).is_usable(), "{url}");
        }
    }

    #[test]
    fn only_the_last_line_is_a_map() {
        let text = format!("{COMMENT}x\ncode();\n");
        assert_eq!(split(&text), (text.len(), None));
        assert_eq!(split("code();"), (7, None));
    }
}
