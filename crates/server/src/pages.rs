//! Static pages: the browser client, and whatever the program that embeds the server adds.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use axum::body::Body;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use parking_lot::RwLock;

/// Files [`read_directory`] takes; a folder with more was surely not meant.
const FILES_MAX: usize = 1_000;
/// Bytes of all files together that [`read_directory`] takes: they stay in memory.
const DIRECTORY_BYTES_MAX: u64 = 64 << 20;
/// Folders inside each other that [`read_directory`] enters.
const DEPTH_MAX: usize = 8;

/// A page at a fixed path.
#[derive(Clone, Debug)]
pub struct Page {
    /// Path from the root, such as `/app/index.html`. A path that ends in `/` shows its `index.html`.
    pub path: String,
    /// Value of `content-type`.
    pub content_type: &'static str,
    /// The content.
    pub bytes: Bytes,
}

impl Page {
    /// A page whose content type follows from the path's extension.
    pub fn new(path: impl Into<String>, bytes: impl Into<Bytes>) -> Page {
        let path = path.into();
        let content_type = content_type(&path);
        Page { path, content_type, bytes: bytes.into() }
    }
}

/// Reads all files below `directory` as pages below `prefix` (such as `/app/`). Names that begin with
/// a dot, and links, are left out.
///
/// # Errors
/// Those of the file system, and [`io::ErrorKind::FileTooLarge`] when there is too much to keep.
pub fn read_directory(directory: &Path, prefix: &str) -> io::Result<Vec<Page>> {
    let mut pages = Vec::new();
    let mut bytes = 0;
    let mut waiting = vec![(directory.to_path_buf(), prefix.trim_end_matches('/').to_owned(), 0)];
    while let Some((folder, prefix, depth)) = waiting.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let kind = entry.file_type()?;
            let path = format!("{prefix}/{name}");
            if name.starts_with('.') {
                continue;
            }
            if kind.is_dir() && depth < DEPTH_MAX {
                waiting.push((entry.path(), path, depth + 1));
            } else if kind.is_file() {
                bytes += entry.metadata()?.len();
                if pages.len() == FILES_MAX || bytes > DIRECTORY_BYTES_MAX {
                    return Err(io::ErrorKind::FileTooLarge.into());
                }
                pages.push(Page::new(path, std::fs::read(entry.path())?));
            }
        }
    }
    Ok(pages)
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "wasm" => "application/wasm",
        "md" | "txt" | "ts" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

/// All pages of a server by path.
pub(crate) struct Pages(RwLock<HashMap<String, Page>>);

impl Pages {
    /// The built-in pages and `extra`; those win.
    pub fn new(extra: Vec<Page>) -> Pages {
        Pages(RwLock::new(Pages::by_path(extra)))
    }

    /// Replaces what was added by other pages.
    pub fn replace(&self, extra: Vec<Page>) {
        *self.0.write() = Pages::by_path(extra);
    }

    fn by_path(extra: Vec<Page>) -> HashMap<String, Page> {
        let built_in = [
            Page::new("/tine/client.js", include_str!("../../../web/client.js")),
            Page::new("/tine/rows.js", include_str!("../../../web/rows.js")),
            Page::new("/tine/schema.js", include_str!("../../../web/schema.js")),
            Page::new("/tine/client.d.ts", include_str!("../../../web/client.d.ts")),
        ];
        built_in.into_iter().chain(extra).map(|page| (page.path.clone(), page)).collect()
    }

    /// The answer to a request of `path` that no route took.
    pub fn respond(&self, method: &Method, path: &str) -> Option<Response> {
        let pages = self.0.read();
        let found = match path.strip_suffix('/') {
            Some(folder) => pages.get(path).or_else(|| pages.get(&format!("{folder}/index.html"))),
            None => pages.get(path),
        };
        let Some(page) = found else {
            // Relative addresses inside the page need the slash.
            let is_folder = pages.contains_key(&format!("{path}/index.html"));
            return is_folder.then(|| redirect(&format!("{path}/"))).flatten();
        };
        if method != Method::GET && method != Method::HEAD {
            return Some(StatusCode::METHOD_NOT_ALLOWED.into_response());
        }
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static(page.content_type)),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
            (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        ];
        let body = if method == Method::HEAD { Body::empty() } else { Body::from(page.bytes.clone()) };
        Some((headers, body).into_response())
    }
}

fn redirect(to: &str) -> Option<Response> {
    let location = HeaderValue::from_str(to).ok()?;
    Some((StatusCode::PERMANENT_REDIRECT, [(header::LOCATION, location)]).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_show_their_index_and_types_follow_extensions() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("deep")).unwrap();
        std::fs::write(folder.path().join("index.html"), "<p>").unwrap();
        std::fs::write(folder.path().join(".secret"), "x").unwrap();
        std::fs::write(folder.path().join("deep/app.js"), "1").unwrap();
        std::os::unix::fs::symlink("/etc/hostname", folder.path().join("link.txt")).unwrap();
        let pages = Pages::new(read_directory(folder.path(), "/app/").unwrap());
        let cases = [
            ("/app/", 200, "text/html; charset=utf-8"),
            ("/app", 308, ""),
            ("/app/index.html", 200, "text/html; charset=utf-8"),
            ("/app/deep/app.js", 200, "text/javascript; charset=utf-8"),
            ("/tine/client.js", 200, "text/javascript; charset=utf-8"),
        ];
        for (path, status, content_type) in cases {
            let response = pages.respond(&Method::GET, path).unwrap_or_else(|| panic!("{path}"));
            assert_eq!(response.status().as_u16(), status, "{path}");
            let found = response.headers().get(header::CONTENT_TYPE).map_or("", |value| value.to_str().unwrap());
            assert_eq!(found, content_type, "{path}");
        }
        for path in ["/app/.secret", "/app/link.txt", "/app/deep", "/app/../app/index.html", "/"] {
            assert!(pages.respond(&Method::GET, path).is_none(), "{path}");
        }
        assert_eq!(pages.respond(&Method::POST, "/app/").unwrap().status().as_u16(), 405);
    }
}
