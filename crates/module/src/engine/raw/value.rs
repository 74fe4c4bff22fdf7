//! Operations on values.

use std::ffi::{c_int, c_void};
use std::mem::ManuallyDrop;
use std::ops::Deref;

use rquickjs_sys as qjs;

use super::{Atom, Borrowed, ClassId, Cx, Exception, JsResult, Kind, PLAIN, Root, Value, c_string};

impl Drop for Value<'_> {
    fn drop(&mut self) {
        // SAFETY: this value owns one reference, given back once.
        unsafe {
            if qjs::JS_VALUE_HAS_REF_COUNT(self.raw) {
                qjs::JS_FreeValue(self.cx.ptr(), self.raw);
            }
        }
    }
}

impl Clone for Value<'_> {
    fn clone(&self) -> Self {
        // SAFETY: the value is alive.
        self.cx.own(unsafe { qjs::JS_DupValue(self.cx.ptr(), self.raw) })
    }
}

impl<'js> Deref for Borrowed<'js> {
    type Target = Value<'js>;

    fn deref(&self) -> &Value<'js> {
        &self.0
    }
}

impl<'js> Value<'js> {
    pub(super) fn into_raw(self) -> qjs::JSValue {
        ManuallyDrop::new(self).raw
    }

    pub(in crate::engine) fn cx(&self) -> Cx<'js> {
        self.cx
    }

    #[inline]
    pub(in crate::engine) fn kind(&self) -> Kind {
        // SAFETY: reads the part of the value that its tag names.
        unsafe {
            match qjs::JS_VALUE_GET_TAG(self.raw) {
                qjs::JS_TAG_INT => Kind::Int(qjs::JS_VALUE_GET_INT(self.raw)),
                qjs::JS_TAG_STRING | qjs::JS_TAG_STRING_ROPE => Kind::String,
                qjs::JS_TAG_OBJECT => Kind::Object,
                qjs::JS_TAG_SHORT_BIG_INT => Kind::ShortBigInt(qjs::JS_VALUE_GET_INT(self.raw)),
                qjs::JS_TAG_BIG_INT => Kind::BigInt,
                qjs::JS_TAG_BOOL => Kind::Bool(qjs::JS_VALUE_GET_BOOL(self.raw)),
                qjs::JS_TAG_UNDEFINED => Kind::Undefined,
                qjs::JS_TAG_NULL => Kind::Null,
                qjs::JS_TAG_SYMBOL => Kind::Symbol,
                tag if qjs::JS_TAG_IS_FLOAT64(tag) => Kind::Float(qjs::JS_VALUE_GET_FLOAT64(self.raw)),
                _ => Kind::Other,
            }
        }
    }

    pub(in crate::engine) fn is_undefined(&self) -> bool {
        self.kind() == Kind::Undefined
    }

    pub(in crate::engine) fn is_nullish(&self) -> bool {
        matches!(self.kind(), Kind::Undefined | Kind::Null)
    }

    pub(in crate::engine) fn is_object(&self) -> bool {
        self.kind() == Kind::Object
    }

    pub(in crate::engine) fn is_function(&self) -> bool {
        // SAFETY: the value is alive.
        unsafe { qjs::JS_IsFunction(self.cx.ptr(), self.raw) }
    }

    pub(in crate::engine) fn is_array(&self) -> bool {
        // SAFETY: the value is alive.
        unsafe { qjs::JS_IsArray(self.raw) }
    }

    pub(in crate::engine) fn is_error(&self) -> bool {
        // SAFETY: the value is alive.
        unsafe { qjs::JS_IsError(self.raw) }
    }

    /// Whether it is a promise, and if so whether it is settled (`Some(true)`: with a value).
    pub(in crate::engine) fn promise(&self) -> Option<Option<bool>> {
        // SAFETY: the value is alive.
        unsafe {
            if !qjs::JS_IsPromise(self.raw) {
                return None;
            }
            Some(match qjs::JS_PromiseState(self.cx.ptr(), self.raw) {
                qjs::JSPromiseStateEnum_JS_PROMISE_FULFILLED => Some(true),
                qjs::JSPromiseStateEnum_JS_PROMISE_REJECTED => Some(false),
                _ => None,
            })
        }
    }

    /// The value or reason of a settled promise.
    pub(in crate::engine) fn promise_result(&self) -> Value<'js> {
        // SAFETY: the value is alive.
        self.cx.own(unsafe { qjs::JS_PromiseResult(self.cx.ptr(), self.raw) })
    }

    /// `value instanceof class`.
    pub(in crate::engine) fn is_instance_of(&self, class: Root) -> JsResult<bool> {
        // SAFETY: both are alive.
        self.cx.check_int(unsafe { qjs::JS_IsInstanceOf(self.cx.ptr(), self.raw, class.0) })
    }

    pub(in crate::engine) fn strictly_equals(&self, other: &Value<'js>) -> bool {
        // SAFETY: both are alive; the call only looks at them.
        unsafe { qjs::JS_IsStrictEqual(self.cx.ptr(), self.raw, other.raw) }
    }

    /// Reads a property.
    #[inline]
    pub(in crate::engine) fn get(&self, name: Atom) -> JsResult<Value<'js>> {
        // SAFETY: value and atom are alive.
        self.cx.check(unsafe { qjs::JS_GetProperty(self.cx.ptr(), self.raw, name.0) })
    }

    pub(in crate::engine) fn get_named(&self, name: &str) -> JsResult<Value<'js>> {
        // SAFETY: value and name are alive.
        self.cx.check(unsafe { qjs::JS_GetPropertyStr(self.cx.ptr(), self.raw, c_string(name).as_ptr()) })
    }

    pub(in crate::engine) fn get_index(&self, index: u32) -> JsResult<Value<'js>> {
        // SAFETY: the value is alive.
        self.cx.check(unsafe { qjs::JS_GetPropertyUint32(self.cx.ptr(), self.raw, index) })
    }

    /// The `length` of an array.
    pub(in crate::engine) fn length(&self) -> JsResult<u64> {
        let mut length = 0;
        // SAFETY: the value is alive.
        self.cx.check_int(unsafe { qjs::JS_GetLength(self.cx.ptr(), self.raw, &mut length) })?;
        Ok(u64::try_from(length).unwrap_or(0))
    }

    /// Defines an own property as in an object literal.
    #[inline]
    pub(in crate::engine) fn define(&self, name: Atom, value: Value<'js>) -> JsResult<()> {
        // SAFETY: object and atom are alive; the call takes the value's reference over.
        self.cx.check_int(unsafe {
            qjs::JS_DefinePropertyValue(self.cx.ptr(), self.raw, name.0, value.into_raw(), PLAIN)
        })?;
        Ok(())
    }

    pub(in crate::engine) fn define_named(&self, name: &str, value: Value<'js>) -> JsResult<()> {
        // SAFETY: object and name are alive; the call takes the value's reference over.
        self.cx.check_int(unsafe {
            qjs::JS_DefinePropertyValueStr(self.cx.ptr(), self.raw, c_string(name).as_ptr(), value.into_raw(), PLAIN)
        })?;
        Ok(())
    }

    /// Defines a property that enumeration does not show, as globals are.
    pub(in crate::engine) fn define_hidden(&self, name: &str, value: Value<'js>) -> JsResult<()> {
        let flags = (qjs::JS_PROP_CONFIGURABLE | qjs::JS_PROP_WRITABLE) as c_int;
        // SAFETY: object and name are alive; the call takes the value's reference over.
        self.cx.check_int(unsafe {
            qjs::JS_DefinePropertyValueStr(self.cx.ptr(), self.raw, c_string(name).as_ptr(), value.into_raw(), flags)
        })?;
        Ok(())
    }

    /// `!!value`. Runs no code.
    pub(in crate::engine) fn is_truthy(&self) -> bool {
        // SAFETY: the value is alive.
        unsafe { qjs::JS_ToBool(self.cx.ptr(), self.raw) > 0 }
    }

    /// Defines an own property whose name is a string or symbol.
    pub(in crate::engine) fn define_value(&self, name: &Value<'js>, value: Value<'js>) -> JsResult<()> {
        let name = name.property_name()?;
        // SAFETY: object and atom are alive; the call takes the value's reference over.
        self.cx.check_int(unsafe {
            qjs::JS_DefinePropertyValue(self.cx.ptr(), self.raw, name.atom, value.into_raw(), PLAIN)
        })?;
        Ok(())
    }

    /// Defines a property whose name is a string or symbol, and that enumeration does not show.
    pub(in crate::engine) fn define_hidden_value(&self, name: &Value<'js>, value: Value<'js>) -> JsResult<()> {
        let name = name.property_name()?;
        let flags = (qjs::JS_PROP_CONFIGURABLE | qjs::JS_PROP_WRITABLE) as c_int;
        // SAFETY: object and atom are alive; the call takes the value's reference over.
        self.cx.check_int(unsafe {
            qjs::JS_DefinePropertyValue(self.cx.ptr(), self.raw, name.atom, value.into_raw(), flags)
        })?;
        Ok(())
    }

    /// Defines the properties of an object literal, with their accessors, so that enumeration does not show them. Those named by
    /// symbols are left out.
    pub(in crate::engine) fn define_hidden_members(&self, members: &Value<'js>) -> JsResult<()> {
        let cx = self.cx;
        let (mut names, mut count) = (std::ptr::null_mut(), 0);
        // SAFETY: the object is alive; the result is an array of `count` atoms that is ours to free.
        cx.check_int(unsafe {
            let flags = qjs::JS_GPN_STRING_MASK as c_int;
            qjs::JS_GetOwnPropertyNames(cx.ptr(), &mut names, &mut count, members.raw, flags)
        })?;
        // SAFETY: as above; the array is freed after its last use. A literal's property is there, so its descriptor is written, with
        // references of which each is given back by a `Value`; what the descriptor lacks is undefined.
        unsafe {
            let result = (0..count as usize).try_for_each(|index| {
                let name = (*names.add(index)).atom;
                let mut found = qjs::JSPropertyDescriptor {
                    flags: 0,
                    value: qjs::JS_UNDEFINED,
                    getter: qjs::JS_UNDEFINED,
                    setter: qjs::JS_UNDEFINED,
                };
                cx.check_int(qjs::JS_GetOwnProperty(cx.ptr(), &mut found, members.raw, name))?;
                let [value, getter, setter] = [found.value, found.getter, found.setter].map(|raw| cx.own(raw));
                let kind = if found.flags & qjs::JS_PROP_GETSET as c_int != 0 {
                    qjs::JS_PROP_HAS_GET | qjs::JS_PROP_HAS_SET
                } else {
                    qjs::JS_PROP_HAS_VALUE | qjs::JS_PROP_HAS_WRITABLE | qjs::JS_PROP_WRITABLE
                };
                let hidden = qjs::JS_PROP_HAS_ENUMERABLE | qjs::JS_PROP_HAS_CONFIGURABLE | qjs::JS_PROP_CONFIGURABLE;
                let flags = (kind | hidden) as c_int;
                let defined =
                    qjs::JS_DefineProperty(cx.ptr(), self.raw, name, value.raw, getter.raw, setter.raw, flags);
                cx.check_int(defined)?;
                Ok(())
            });
            qjs::JS_FreePropertyEnum(cx.ptr(), names, count);
            result
        }
    }

    /// Defines a hidden accessor.
    pub(in crate::engine) fn define_getter(&self, name: Atom, getter: Value<'js>) -> JsResult<()> {
        let flags = qjs::JS_PROP_CONFIGURABLE as c_int;
        // SAFETY: object and atom are alive; the call takes the getter's reference over.
        self.cx.check_int(unsafe {
            qjs::JS_DefinePropertyGetSet(self.cx.ptr(), self.raw, name.0, getter.into_raw(), qjs::JS_UNDEFINED, flags)
        })?;
        Ok(())
    }

    /// Links a constructor and its prototype.
    pub(in crate::engine) fn set_constructor_of(&self, prototype: &Value<'js>) -> JsResult<()> {
        // SAFETY: both are alive.
        self.cx.check_int(unsafe { qjs::JS_SetConstructor(self.cx.ptr(), self.raw, prototype.raw) })?;
        Ok(())
    }

    /// `Object.freeze`.
    pub(in crate::engine) fn freeze(&self) -> JsResult<()> {
        // SAFETY: the object is alive.
        self.cx.check_int(unsafe { qjs::JS_FreezeObject(self.cx.ptr(), self.raw) })?;
        Ok(())
    }

    /// Forbids new properties.
    pub(in crate::engine) fn prevent_extensions(&self) -> JsResult<()> {
        // SAFETY: the object is alive.
        self.cx.check_int(unsafe { qjs::JS_PreventExtensions(self.cx.ptr(), self.raw) })?;
        Ok(())
    }

    /// Calls a function.
    pub(in crate::engine) fn call(&self, this: &Value<'js>, args: &[&Value<'js>]) -> JsResult<Value<'js>> {
        let mut raw = [qjs::JS_UNDEFINED; CALL_ARGS_MAX];
        assert!(args.len() <= CALL_ARGS_MAX, "{} arguments", args.len());
        for (slot, arg) in raw.iter_mut().zip(args) {
            *slot = arg.raw;
        }
        // SAFETY: function, receiver and arguments are alive during the call, which takes none of the references.
        self.cx.check(unsafe { qjs::JS_Call(self.cx.ptr(), self.raw, this.raw, args.len() as c_int, raw.as_mut_ptr()) })
    }

    /// `new`.
    pub(in crate::engine) fn construct(&self, arg: &Value<'js>) -> JsResult<Value<'js>> {
        let mut raw = [arg.raw];
        // SAFETY: as for `call`.
        self.cx.check(unsafe { qjs::JS_CallConstructor(self.cx.ptr(), self.raw, 1, raw.as_mut_ptr()) })
    }

    /// `new DataView(buffer, 0, length)` and its like: `new` with three arguments.
    pub(in crate::engine) fn construct_view(
        &self,
        buffer: &Value<'js>,
        offset: i32,
        length: i32,
    ) -> JsResult<Value<'js>> {
        let mut raw = [buffer.raw, self.cx.int(offset).raw, self.cx.int(length).raw];
        // SAFETY: as for `call`.
        self.cx.check(unsafe { qjs::JS_CallConstructor(self.cx.ptr(), self.raw, 3, raw.as_mut_ptr()) })
    }

    /// Passes the bytes of a plain `ArrayBuffer` to `use_bytes`, which must not run JavaScript; `None` if it is another
    /// value or its memory was taken away.
    #[inline]
    pub(in crate::engine) fn with_array_buffer<T>(&self, use_bytes: impl FnOnce(&mut [u8]) -> T) -> Option<T> {
        // SAFETY: the value is alive; the size is written by the call. An exception that a failed call leaves is dropped.
        let (start, size) = unsafe {
            if !qjs::JS_IsArrayBuffer(self.raw) {
                return None;
            }
            let mut size = 0;
            let start = qjs::JS_GetArrayBuffer(self.cx.ptr(), &mut size, self.raw);
            (start, size as usize)
        };
        if start.is_null() {
            self.cx.take_exception();
            return None;
        }
        if size == 0 {
            return Some(use_bytes(&mut []));
        }
        // SAFETY: the engine owns `size` bytes there; nothing can free or move them, and nobody else reads or writes them, while
        // no JavaScript runs.
        Some(use_bytes(unsafe { std::slice::from_raw_parts_mut(start, size) }))
    }

    /// Whether it is a `DataView`.
    pub(in crate::engine) fn is_data_view(&self) -> bool {
        // SAFETY: the value is alive.
        unsafe { qjs::JS_IsDataView(self.raw) }
    }

    /// Sets an element of an array.
    pub(in crate::engine) fn set_index(&self, index: u32, value: Value<'js>) -> JsResult<()> {
        // SAFETY: the array is alive; the call takes the value's reference over.
        self.cx.check_int(unsafe { qjs::JS_SetPropertyUint32(self.cx.ptr(), self.raw, index, value.into_raw()) })?;
        Ok(())
    }

    /// Passes `String(value)` to `use_text`. Lone surrogates become U+FFFD.
    pub(in crate::engine) fn with_text<T>(&self, use_text: impl FnOnce(&str) -> T) -> JsResult<T> {
        let mut length = 0;
        // SAFETY: the result is null or a block of `length` bytes, valid until it is freed below. The engine writes UTF-8 except
        // that lone surrogates are written like other characters.
        unsafe {
            let text = qjs::JS_ToCStringLen(self.cx.ptr(), &raw mut length, self.raw);
            if text.is_null() {
                return Err(Exception);
            }
            let bytes = std::slice::from_raw_parts(text.cast::<u8>(), length);
            let result = match std::str::from_utf8(bytes) {
                Ok(text) => use_text(text),
                Err(_) => use_text(&replace_surrogates(bytes)),
            };
            qjs::JS_FreeCString(self.cx.ptr(), text);
            Ok(result)
        }
    }

    /// `String(value)`.
    pub(in crate::engine) fn to_text(&self) -> JsResult<String> {
        self.with_text(str::to_owned)
    }

    /// Whether a property name and this value, a string, are the same.
    pub(in crate::engine) fn property_name(&self) -> JsResult<Name<'js>> {
        // SAFETY: the value is alive; 0 is the null atom.
        let atom = unsafe { qjs::JS_ValueToAtom(self.cx.ptr(), self.raw) };
        if atom == 0 { Err(Exception) } else { Ok(Name { atom, cx: self.cx }) }
    }

    /// The low 64 bits of a big integer.
    pub(in crate::engine) fn big_int_bits(&self) -> JsResult<u64> {
        let mut bits = 0;
        // SAFETY: the value is alive.
        self.cx.check_int(unsafe { qjs::JS_ToBigUint64(self.cx.ptr(), &mut bits, self.raw) })?;
        Ok(bits)
    }

    /// `Number(value)`.
    pub(in crate::engine) fn to_number(&self) -> JsResult<f64> {
        let mut number = 0.0;
        // SAFETY: the value is alive.
        self.cx.check_int(unsafe { qjs::JS_ToFloat64(self.cx.ptr(), &mut number, self.raw) })?;
        Ok(number)
    }

    /// The word of an object of `class`; `None` for anything else.
    #[inline]
    pub(in crate::engine) fn word(&self, class: ClassId) -> Option<u64> {
        self.opaque(class).map(|word| word as usize as u64)
    }

    /// The block of an object of `class`; `None` for anything else.
    #[inline]
    pub(in crate::engine) fn block<const N: usize>(&self, class: ClassId) -> Option<[u8; N]> {
        let block = self.opaque(class).filter(|block| !block.is_null())?;
        // SAFETY: objects of a class hold blocks of one size, and callers name a class with its size.
        Some(unsafe { block.cast::<[u8; N]>().read_unaligned() })
    }

    /// The address of an object's block, which lives as long as the object.
    fn opaque(&self, class: ClassId) -> Option<*mut c_void> {
        let mut actual = 0;
        // SAFETY: the value is alive; non-objects have class 0.
        let opaque = unsafe { qjs::JS_GetAnyOpaque(self.raw, &mut actual) };
        (actual == class.0).then_some(opaque)
    }

    /// Passes the bytes of a `Uint8Array`, `ArrayBuffer` or other view to `use_bytes`, which must not run JavaScript;
    /// `None` if it is none of those.
    pub(in crate::engine) fn with_bytes<T>(&self, use_bytes: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let (start, length, _buffer) = self.byte_range()?;
        // SAFETY: `byte_range` gives a live range; nothing can free or move it while no JavaScript runs.
        Some(use_bytes(unsafe { slice(start, length) }))
    }

    /// Passes the bytes of a typed array to `fill`, which must not run JavaScript; `false` if it is none.
    pub(in crate::engine) fn fill_bytes(&self, fill: impl FnOnce(&mut [u8])) -> bool {
        let Some((start, length, _buffer)) = self.byte_range() else { return false };
        if length > 0 {
            // SAFETY: as in `with_bytes`; no other reference to the range exists while no JavaScript runs.
            fill(unsafe { std::slice::from_raw_parts_mut(start, length) });
        }
        true
    }

    /// Start and length of the memory behind a buffer or view, and the buffer that keeps it alive.
    fn byte_range(&self) -> Option<(*mut u8, usize, Value<'js>)> {
        if !self.is_object() {
            return None;
        }
        // SAFETY: the value is an alive object; the sizes are written by the calls. Failed calls leave an exception, which is dropped.
        unsafe {
            let mut size = 0;
            if qjs::JS_IsArrayBuffer(self.raw) {
                let start = qjs::JS_GetArrayBuffer(self.cx.ptr(), &mut size, self.raw);
                return Some((start, size as usize, self.clone()));
            }
            if qjs::JS_GetTypedArrayType(self.raw) < 0 {
                return None;
            }
            let (mut offset, mut length) = (0, 0);
            let buffer =
                qjs::JS_GetTypedArrayBuffer(self.cx.ptr(), self.raw, &mut offset, &mut length, std::ptr::null_mut());
            let Ok(buffer) = self.cx.check(buffer) else {
                self.cx.take_exception();
                return None;
            };
            let start = qjs::JS_GetArrayBuffer(self.cx.ptr(), &mut size, buffer.raw);
            if offset as usize + length as usize > size as usize {
                return None;
            }
            Some((start.wrapping_add(offset as usize), length as usize, buffer))
        }
    }
}

/// The most arguments that natives pass to JavaScript.
const CALL_ARGS_MAX: usize = 5;

/// # Safety
/// `length` bytes from `start` are alive, or `length` is 0.
unsafe fn slice<'a>(start: *const u8, length: usize) -> &'a [u8] {
    // SAFETY: see above.
    if length == 0 { &[] } else { unsafe { std::slice::from_raw_parts(start, length) } }
}

/// Replaces the encodings of lone surrogates, three bytes each, by that of U+FFFD.
fn replace_surrogates(bytes: &[u8]) -> String {
    let mut copy = bytes.to_vec();
    for start in 0..copy.len().saturating_sub(2) {
        if copy[start] == 0xed && copy[start + 1] >= 0xa0 {
            copy[start..start + 3].copy_from_slice("\u{fffd}".as_bytes());
        }
    }
    String::from_utf8_lossy(&copy).into_owned()
}

/// A property name that is given back when dropped.
pub(in crate::engine) struct Name<'js> {
    pub(super) atom: qjs::JSAtom,
    pub(super) cx: Cx<'js>,
}

impl Name<'_> {
    pub(in crate::engine) fn is(&self, atom: Atom) -> bool {
        self.atom == atom.0
    }

    pub(super) fn to_text(&self) -> JsResult<String> {
        // SAFETY: the atom is alive.
        self.cx.check(unsafe { qjs::JS_AtomToString(self.cx.ptr(), self.atom) })?.to_text()
    }
}

impl Drop for Name<'_> {
    fn drop(&mut self) {
        // SAFETY: this owns one reference to the atom.
        unsafe { qjs::JS_FreeAtom(self.cx.ptr(), self.atom) };
    }
}
