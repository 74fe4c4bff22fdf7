//! The envelope of a module definition: version, sections, submodules.

use serde_json::{Value, json};

use super::codec::{Decoder, Part};
use super::v9;
use super::{CasePolicy, ExplicitName, ModuleDef, Submodule};
use crate::Typespace;
use crate::bsatn::{BsatnWrite, DecodeError, Reader, TypeBudget};
use crate::json::{JsonError, JsonErrorKind, expect_array, expect_text, field, single_entry};

/// How deep modules may nest. A name has one prefix per level, and nobody writes more than two.
pub const SUBMODULE_DEPTH_MAX: usize = 8;

/// Largest module definition, in bytes. A definition is kept in memory, decoded, for every version
/// of a module; a module of a thousand tables has a tenth of this.
pub const MODULE_BYTES_MAX: usize = 16 << 20;

/// Version tag of the older format, which is read only.
const VERSION_9: u8 = 1;
/// Version tag of the format that is written.
const VERSION_10: u8 = 2;

/// Tags of the sections in the order in which the module SDK writes them.
const SECTION_ORDER: [u8; SECTIONS] = [0, 1, 2, 3, 4, 5, 13, 6, 7, 11, 12, 8, 10, 9, 14];
const SECTIONS: usize = 15;

/// JSON names of the sections, by tag.
const SECTION_NAMES: [&str; SECTIONS] = [
    "Typespace",
    "Types",
    "Tables",
    "Reducers",
    "Procedures",
    "Views",
    "Schedules",
    "LifeCycleReducers",
    "RowLevelSecurity",
    "CaseConversionPolicy",
    "ExplicitNames",
    "HttpHandlers",
    "HttpRoutes",
    "ViewPrimaryKeys",
    "Submodules",
];

/// Why bytes are no module definition.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ModuleDefError {
    /// Longer than [`MODULE_BYTES_MAX`].
    #[error("module definition of {bytes} bytes; at most {MODULE_BYTES_MAX} are allowed")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// A version of the format that is not read.
    #[error("module definition format with tag {tag} is not supported, only V10 (tag 2) and V9 (tag 1)")]
    UnsupportedVersion {
        /// The version tag.
        tag: u8,
    },
    /// A section that came before.
    #[error("section {section} of the module definition comes twice")]
    DuplicateSection {
        /// Name of the section.
        section: &'static str,
    },
    /// Modules nest deeper than [`SUBMODULE_DEPTH_MAX`].
    #[error("submodules nest deeper than {SUBMODULE_DEPTH_MAX} levels")]
    TooDeep,
    /// Anything else.
    #[error("malformed module definition: {0}")]
    Malformed(#[from] DecodeError),
}

impl ModuleDefError {
    /// Stable code of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "TN0140",
            Self::UnsupportedVersion { .. } => "TN0141",
            Self::DuplicateSection { .. } => "TN0142",
            Self::TooDeep => "TN0143",
            Self::Malformed(_) => "TN0144",
        }
    }
}

impl ModuleDef {
    /// Reads a definition, version tag included, to the last byte.
    ///
    /// # Errors
    /// Bytes that are no V10 or V9 definition, or one past the bounds.
    pub fn decode(bytes: &[u8]) -> Result<Self, ModuleDefError> {
        if bytes.len() > MODULE_BYTES_MAX {
            return Err(ModuleDefError::TooLarge { bytes: bytes.len() });
        }
        let mut decoder = Decoder { reader: Reader::new(bytes), types: TypeBudget::default() };
        let module = match decoder.reader.u8()? {
            VERSION_10 => read_module(&mut decoder, 0)?,
            VERSION_9 => v9::Definition::read(&mut decoder)?.into_module(),
            tag => return Err(ModuleDefError::UnsupportedVersion { tag }),
        };
        decoder.reader.finish()?;
        Ok(module)
    }

    /// The definition's bytes, version tag included, with all sections.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION_10];
        write_module(self, &mut out);
        out
    }

    /// The definition as SATS-JSON, `{"sections": [...]}`, without the version around it.
    pub fn to_json(&self) -> Value {
        let sections: Vec<_> = SECTION_ORDER
            .iter()
            .map(|&tag| json!({ SECTION_NAMES[usize::from(tag)]: section_to_json(self, tag) }))
            .collect();
        json!({ "sections": sections })
    }

    /// Reads a definition that [`ModuleDef::to_json`] wrote. Sections may lack and come in any order.
    ///
    /// # Errors
    /// JSON that is no definition.
    pub fn from_json(value: &Value) -> Result<Self, JsonError> {
        module_from_json(value, 0)
    }
}

fn module_from_json(value: &Value, depth: usize) -> Result<ModuleDef, JsonError> {
    let mut module = ModuleDef::default();
    for section in expect_array(field(value, "sections")?)? {
        let (name, payload) = single_entry(section)?;
        let tag = SECTION_NAMES.iter().position(|known| *known == name);
        match tag.ok_or_else(|| JsonErrorKind::UnknownVariant(name.to_owned()))? {
            0 => module.typespace = Typespace(Part::from_json(field(payload, "types")?)?),
            1 => module.types = Part::from_json(payload)?,
            2 => module.tables = Part::from_json(payload)?,
            3 => module.reducers = Part::from_json(payload)?,
            4 => module.procedures = Part::from_json(payload)?,
            5 => module.views = Part::from_json(payload)?,
            6 => module.schedules = Part::from_json(payload)?,
            7 => module.lifecycle = Part::from_json(payload)?,
            8 => module.row_level_security = Part::from_json(payload)?,
            9 => module.case_policy = Part::from_json(payload)?,
            10 => module.explicit_names = Part::from_json(field(payload, "entries")?)?,
            11 => module.http_handlers = Part::from_json(payload)?,
            12 => module.http_routes = Part::from_json(payload)?,
            13 => module.view_primary_keys = Part::from_json(payload)?,
            _ => {
                for submodule in expect_array(payload)? {
                    if depth >= SUBMODULE_DEPTH_MAX {
                        return Err(DecodeError::TooDeep { position: 0 }.into());
                    }
                    module.submodules.push(Submodule {
                        namespace: expect_text(field(submodule, "namespace")?)?.into(),
                        module: module_from_json(field(submodule, "module")?, depth + 1)?,
                    });
                }
            }
        }
    }
    Ok(module)
}

fn read_module(decoder: &mut Decoder<'_>, depth: usize) -> Result<ModuleDef, ModuleDefError> {
    let count = decoder.reader.array_len(1)?;
    let mut module = ModuleDef::default();
    let mut seen = [false; SECTIONS];
    for _ in 0..count {
        let tag = decoder.reader.tag(SECTIONS)?;
        let seen = &mut seen[usize::from(tag)];
        if std::mem::replace(seen, true) {
            let section = SECTION_NAMES[usize::from(tag)];
            return Err(ModuleDefError::DuplicateSection { section });
        }
        read_section(&mut module, tag, decoder, depth)?;
    }
    Ok(module)
}

fn read_section(
    module: &mut ModuleDef,
    tag: u8,
    decoder: &mut Decoder<'_>,
    depth: usize,
) -> Result<(), ModuleDefError> {
    match tag {
        0 => module.typespace = Typespace(Part::read(decoder)?),
        1 => module.types = Part::read(decoder)?,
        2 => module.tables = Part::read(decoder)?,
        3 => module.reducers = Part::read(decoder)?,
        4 => module.procedures = Part::read(decoder)?,
        5 => module.views = Part::read(decoder)?,
        6 => module.schedules = Part::read(decoder)?,
        7 => module.lifecycle = Part::read(decoder)?,
        8 => module.row_level_security = Part::read(decoder)?,
        9 => module.case_policy = CasePolicy::read(decoder)?,
        10 => module.explicit_names = Vec::<ExplicitName>::read(decoder)?,
        11 => module.http_handlers = Part::read(decoder)?,
        12 => module.http_routes = Part::read(decoder)?,
        13 => module.view_primary_keys = Part::read(decoder)?,
        14 => module.submodules = read_submodules(decoder, depth)?,
        _ => unreachable!("the tag was checked"),
    }
    Ok(())
}

/// A namespace's length and a section count.
const SUBMODULE_SIZE_MIN: usize = 8;

fn read_submodules(decoder: &mut Decoder<'_>, depth: usize) -> Result<Vec<Submodule>, ModuleDefError> {
    let count = decoder.reader.array_len(SUBMODULE_SIZE_MIN)?;
    if count > 0 && depth >= SUBMODULE_DEPTH_MAX {
        return Err(ModuleDefError::TooDeep);
    }
    let mut submodules = Vec::new();
    for _ in 0..count {
        let namespace = Part::read(decoder)?;
        submodules.push(Submodule { namespace, module: read_module(decoder, depth + 1)? });
    }
    Ok(submodules)
}

fn write_module(module: &ModuleDef, out: &mut Vec<u8>) {
    out.put_len(SECTIONS);
    for tag in SECTION_ORDER {
        out.put_u8(tag);
        match tag {
            0 => module.typespace.0.write(out),
            1 => module.types.write(out),
            2 => module.tables.write(out),
            3 => module.reducers.write(out),
            4 => module.procedures.write(out),
            5 => module.views.write(out),
            6 => module.schedules.write(out),
            7 => module.lifecycle.write(out),
            8 => module.row_level_security.write(out),
            9 => module.case_policy.write(out),
            10 => module.explicit_names.write(out),
            11 => module.http_handlers.write(out),
            12 => module.http_routes.write(out),
            13 => module.view_primary_keys.write(out),
            _ => {
                out.put_len(module.submodules.len());
                for submodule in &module.submodules {
                    out.put_str(&submodule.namespace);
                    write_module(&submodule.module, out);
                }
            }
        }
    }
}

fn section_to_json(module: &ModuleDef, tag: u8) -> Value {
    match tag {
        0 => json!({ "types": module.typespace.0.to_json() }),
        1 => module.types.to_json(),
        2 => module.tables.to_json(),
        3 => module.reducers.to_json(),
        4 => module.procedures.to_json(),
        5 => module.views.to_json(),
        6 => module.schedules.to_json(),
        7 => module.lifecycle.to_json(),
        8 => module.row_level_security.to_json(),
        9 => module.case_policy.to_json(),
        10 => json!({ "entries": module.explicit_names.to_json() }),
        11 => module.http_handlers.to_json(),
        12 => module.http_routes.to_json(),
        13 => module.view_primary_keys.to_json(),
        _ => {
            let submodules = module.submodules.iter();
            let to_json = |submodule: &Submodule| json!({ "namespace": submodule.namespace, "module": submodule.module.to_json() });
            submodules.map(to_json).collect()
        }
    }
}
