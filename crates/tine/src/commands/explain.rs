//! `tine explain`

use clap::Args;
use serde_json::json;

use crate::{
    failure::Failure,
    output::{Output, Table},
};

/// The pages of `docs/errors` by code, in order.
static PAGES: &[(&str, &str)] = &include!(concat!(env!("OUT_DIR"), "/error_pages.rs"));

/// `tine explain`
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tine explain TN0601\n  tine explain 601\n  tine explain     (all codes)")]
pub struct ExplainArgs {
    /// The code, as `TN0601`; without one, all are listed
    pub code: Option<String>,
}

/// Prints the page of a code, or the list of all.
///
/// # Errors
/// A code that does not exist.
pub fn run(args: &ExplainArgs, output: &Output) -> Result<(), Failure> {
    let Some(code) = &args.code else { return list(output) };
    let page = normal_code(code).and_then(|code| page(&code).map(|page| (code, page)));
    let Some((code, page)) = page else {
        return Err(Failure::NotFound {
            message: format!("there is no error code `{code}`"),
            next: Some(
                "`tine explain` lists all; a newer server may have codes that this program does not know".into(),
            ),
        });
    };
    if output.is_json() {
        return output.json(&json!({ "code": code, "title": title(page), "page": page }));
    }
    output.lines(page.lines())
}

fn list(output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        let list = PAGES.iter().map(|(code, page)| json!({ "code": code, "title": title(page) }));
        return output.json_list("codes", list.collect());
    }
    let mut table = Table::new(["code", "meaning"]);
    for (code, page) in PAGES {
        table.row([*code, title(page)]);
    }
    output.table(&table)
}

fn page(code: &str) -> Option<&'static str> {
    PAGES.iter().find(|(other, _)| *other == code).map(|(_, page)| *page)
}

/// The heading's words after the code.
fn title(page: &str) -> &str {
    let heading = page.lines().next().unwrap_or_default();
    heading.split_once(": ").map_or(heading, |(_, title)| title)
}

/// `tn601`, `0601` and `601` mean `TN0601`.
fn normal_code(text: &str) -> Option<String> {
    let digits = text.get(..2).filter(|start| start.eq_ignore_ascii_case("TN")).map_or(text, |_| &text[2..]);
    let is_number = !digits.is_empty() && digits.len() <= 4 && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| format!("TN{digits:0>4}"))
}

#[cfg(test)]
mod tests {
    use super::{PAGES, normal_code, page, title};

    #[test]
    fn codes_may_be_shortened() {
        for text in ["TN0601", "tn0601", "0601", "601"] {
            assert_eq!(normal_code(text).as_deref(), Some("TN0601"), "{text}");
        }
        for text in ["", "TN", "TN06011", "x", "TNx601", "é601"] {
            assert_eq!(normal_code(text), None, "{text}");
        }
    }

    #[test]
    fn every_page_has_the_same_shape() {
        assert!(PAGES.len() > 100, "the pages are in the binary");
        for (code, text) in PAGES {
            assert!(text.starts_with(&format!("# {code}: ")), "{code} begins with its heading");
            assert!(!title(text).is_empty() && title(text).len() <= 90, "{code}: the title is one short line");
            for part in ["\n## Cause\n", "\n## Fix\n"] {
                assert!(text.contains(part), "{code} has no{part}");
            }
        }
    }

    #[test]
    fn own_codes_have_pages() {
        for code in ["TN0850", "TN0851", "TN0852", "TN0853"] {
            assert!(page(code).is_some(), "{code}");
        }
        assert!(page("TN9999").is_none());
    }
}
