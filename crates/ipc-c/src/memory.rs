//! What crosses the border: bytes, texts, handles. The terms are in the crate's documentation.

use std::ffi::{CStr, c_char};

use transport::SchemaHash;

/// Bytes that the other side frees with [`tine_bytes_free`].
#[repr(C)]
#[derive(Debug)]
pub struct Bytes {
    data: *mut u8,
    length: usize,
}

impl Bytes {
    /// Nothing.
    pub const NONE: Bytes = Bytes { data: std::ptr::null_mut(), length: 0 };
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Bytes {
        let length = bytes.len();
        Bytes { data: Box::into_raw(bytes.into_boxed_slice()).cast(), length }
    }
}

/// See the header.
///
/// # Safety
/// The bytes come from this library and are freed once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_bytes_free(bytes: Bytes) {
    if !bytes.data.is_null() {
        let slice = std::ptr::slice_from_raw_parts_mut(bytes.data, bytes.length);
        // SAFETY: made by `Bytes::from` out of a box of exactly this slice, and freed once.
        drop(unsafe { Box::from_raw(slice) });
    }
}

/// A range of bytes.
///
/// # Safety
/// A range, as the crate's terms say.
pub unsafe fn range<'a>(data: *const u8, length: usize) -> Option<&'a [u8]> {
    match (data.is_null(), length) {
        (_, 0) => Some(&[]),
        (true, _) => None,
        // SAFETY: not null, and readable for its length by the terms.
        (false, length) => Some(unsafe { std::slice::from_raw_parts(data, length) }),
    }
}

/// A text.
///
/// # Safety
/// Null, or a text, as the crate's terms say.
pub unsafe fn text<'a>(text: *const c_char) -> Option<&'a str> {
    if text.is_null() {
        return None;
    }
    // SAFETY: not null, and ends with a zero byte by the terms.
    unsafe { CStr::from_ptr(text) }.to_str().ok()
}

/// A schema's hash; null stands for any.
///
/// # Safety
/// Null, or readable for 32 bytes.
pub unsafe fn schema(data: *const u8) -> SchemaHash {
    if data.is_null() {
        return SchemaHash::ANY;
    }
    // SAFETY: not null, and readable for 32 bytes by the caller.
    SchemaHash(unsafe { *data.cast::<[u8; 32]>() })
}

/// Gives a handle away.
pub fn give<T>(value: T) -> *mut T {
    Box::into_raw(Box::new(value))
}

/// Looks at a handle.
///
/// # Safety
/// A handle, as the crate's terms say.
pub unsafe fn handle<'a, T>(handle: *mut T) -> Option<&'a T> {
    // SAFETY: null, or from `give` and not taken back, by the terms.
    unsafe { handle.as_ref() }
}

/// Takes a handle back.
///
/// # Safety
/// A handle, as the crate's terms say, that is not used again.
pub unsafe fn take<T>(handle: *mut T) -> Option<T> {
    // SAFETY: null, or from `give` and taken back once, by the terms.
    (!handle.is_null()).then(|| *unsafe { Box::from_raw(handle) })
}

/// Writes a result to its place.
///
/// # Safety
/// Null, or a place, as the crate's terms say.
pub unsafe fn put<T>(place: *mut T, value: T) {
    if !place.is_null() {
        // SAFETY: not null, and writable by the terms; what was there is not ours to drop.
        unsafe { place.write(value) };
    }
}
