//! JavaScript values. The terms are in the crate's documentation.

use std::{ffi::CString, ffi::c_void, ptr::null_mut};

use napi_sys::{napi_callback_info, napi_env, napi_value};
use parking_lot::Mutex;

/// Most arguments that an export has.
const ARGUMENTS_MAX: usize = 6;

/// Why an export fails: thrown as an error with a `code`.
pub struct Failure {
    /// Stable code.
    pub code: String,
    /// Words.
    pub message: String,
}

impl Failure {
    pub fn new(code: &str, message: impl Into<String>) -> Failure {
        Failure { code: code.to_owned(), message: message.into() }
    }

    /// A value that is not of the wanted kind: a mistake of the TypeScript beside this.
    fn argument() -> Failure {
        Failure::new("TN1064", "a wrong argument")
    }
}

/// The arguments of a call.
pub struct Arguments {
    pub env: napi_env,
    values: [napi_value; ARGUMENTS_MAX],
}

/// Runs an export, and throws its failure.
///
/// # Safety
/// The crate's terms.
pub unsafe fn export(
    env: napi_env,
    info: napi_callback_info,
    body: impl FnOnce(&Arguments) -> Result<napi_value, Failure>,
) -> napi_value {
    let mut arguments = Arguments { env, values: [null_mut(); ARGUMENTS_MAX] };
    let mut count = ARGUMENTS_MAX;
    // SAFETY: by the terms; missing arguments are filled with `undefined`.
    unsafe {
        napi_sys::napi_get_cb_info(env, info, &mut count, arguments.values.as_mut_ptr(), null_mut(), null_mut());
    }
    body(&arguments).unwrap_or_else(|failure| {
        let text = |text: String| CString::new(text.replace('\0', " ")).expect("it has no zero byte");
        let (code, message) = (text(failure.code), text(failure.message));
        // SAFETY: by the terms; both texts end with a zero byte.
        unsafe { napi_sys::napi_throw_error(env, code.as_ptr(), message.as_ptr()) };
        null_mut()
    })
}

impl Arguments {
    pub fn value(&self, index: usize) -> napi_value {
        self.values[index]
    }

    pub fn text(&self, index: usize) -> Result<String, Failure> {
        let mut length = 0;
        // SAFETY: by the crate's terms; the first call only measures, the second has room for a zero byte.
        unsafe {
            let value = self.values[index];
            if napi_sys::napi_get_value_string_utf8(self.env, value, null_mut(), 0, &mut length) != 0 {
                return Err(Failure::argument());
            }
            let mut bytes = vec![0u8; length + 1];
            napi_sys::napi_get_value_string_utf8(self.env, value, bytes.as_mut_ptr().cast(), length + 1, &mut length);
            bytes.truncate(length);
            String::from_utf8(bytes).map_err(|_| Failure::argument())
        }
    }

    pub fn number(&self, index: usize) -> Result<u32, Failure> {
        let mut number = 0;
        // SAFETY: by the crate's terms.
        match unsafe { napi_sys::napi_get_value_uint32(self.env, self.values[index], &mut number) } {
            0 => Ok(number),
            _ => Err(Failure::argument()),
        }
    }

    /// The bytes of a `Uint8Array`, during the call.
    pub fn bytes(&self, index: usize) -> Result<&[u8], Failure> {
        let (mut kind, mut length, mut data) = (0, 0, null_mut::<c_void>());
        let (env, value) = (self.env, self.values[index]);
        // SAFETY: by the crate's terms; the array lives during the call, and no JavaScript runs meanwhile.
        unsafe {
            let status = napi_sys::napi_get_typedarray_info(
                env,
                value,
                &mut kind,
                &mut length,
                &mut data,
                null_mut(),
                null_mut(),
            );
            if status != 0 || kind != napi_sys::TypedarrayType::uint8_array {
                return Err(Failure::argument());
            }
            if length == 0 { Ok(&[]) } else { Ok(std::slice::from_raw_parts(data.cast::<u8>(), length)) }
        }
    }

    /// A schema's hash; `undefined` stands for any.
    pub fn schema(&self, index: usize) -> Result<tine_ipc::SchemaHash, Failure> {
        let mut kind = 0;
        // SAFETY: by the crate's terms.
        unsafe { napi_sys::napi_typeof(self.env, self.values[index], &mut kind) };
        if kind == napi_sys::ValueType::napi_undefined {
            return Ok(tine_ipc::SchemaHash::ANY);
        }
        let bytes = self.bytes(index)?;
        bytes.try_into().map(tine_ipc::SchemaHash).map_err(|_| Failure::argument())
    }

    /// What an external holds.
    ///
    /// # Safety
    /// The external was made for a `T`.
    pub unsafe fn handle<T>(&self, index: usize) -> Result<&Mutex<Option<T>>, Failure> {
        let mut data = null_mut::<c_void>();
        // SAFETY: by the crate's terms; externals hold boxes, which live as long as they do.
        unsafe {
            match napi_sys::napi_get_value_external(self.env, self.values[index], &mut data) {
                0 => Ok(&*data.cast::<Mutex<Option<T>>>()),
                _ => Err(Failure::argument()),
            }
        }
    }
}

/// A value that JavaScript holds, until it is taken or collected.
pub fn external<T>(env: napi_env, value: T) -> napi_value {
    unsafe extern "C" fn finalize<T>(_: napi_env, data: *mut c_void, _: *mut c_void) {
        // SAFETY: Node finalizes each external once, with the data it was made with.
        drop(unsafe { Box::from_raw(data.cast::<Mutex<Option<T>>>()) });
    }
    let data = Box::into_raw(Box::new(Mutex::new(Some(value)))).cast();
    let mut made = null_mut();
    // SAFETY: by the crate's terms.
    unsafe { napi_sys::napi_create_external(env, data, Some(finalize::<T>), null_mut(), &mut made) };
    made
}

pub fn undefined(env: napi_env) -> napi_value {
    let mut made = null_mut();
    // SAFETY: by the crate's terms.
    unsafe { napi_sys::napi_get_undefined(env, &mut made) };
    made
}

pub fn boolean(env: napi_env, value: bool) -> napi_value {
    let mut made = null_mut();
    // SAFETY: by the crate's terms.
    unsafe { napi_sys::napi_get_boolean(env, value, &mut made) };
    made
}

pub fn number(env: napi_env, value: i32) -> napi_value {
    let mut made = null_mut();
    // SAFETY: by the crate's terms.
    unsafe { napi_sys::napi_create_int32(env, value, &mut made) };
    made
}

pub fn text(env: napi_env, value: &str) -> napi_value {
    let mut made = null_mut();
    // SAFETY: by the crate's terms.
    unsafe { napi_sys::napi_create_string_utf8(env, value.as_ptr().cast(), value.len() as isize, &mut made) };
    made
}

/// A `Buffer` with a copy of the bytes.
pub fn buffer(env: napi_env, bytes: &[u8]) -> napi_value {
    let mut made = null_mut();
    // SAFETY: by the crate's terms.
    unsafe { napi_sys::napi_create_buffer_copy(env, bytes.len(), bytes.as_ptr().cast(), null_mut(), &mut made) };
    made
}

/// An object with these properties.
pub fn object(env: napi_env, properties: &[(&std::ffi::CStr, napi_value)]) -> napi_value {
    let mut made = null_mut();
    // SAFETY: by the crate's terms; names end with a zero byte.
    unsafe {
        napi_sys::napi_create_object(env, &mut made);
        for (name, value) in properties {
            napi_sys::napi_set_named_property(env, made, name.as_ptr(), *value);
        }
    }
    made
}

/// Calls a JavaScript function; what it throws ends the program as any uncaught error does.
pub fn invoke(env: napi_env, function: napi_value, arguments: &[napi_value]) {
    // SAFETY: by the crate's terms.
    unsafe {
        napi_sys::napi_call_function(env, undefined(env), function, arguments.len(), arguments.as_ptr(), null_mut());
    }
}
