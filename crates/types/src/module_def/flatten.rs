//! A module with its submodules in one list, in the order in which their functions are numbered: depth first, a module
//! before those within it.

use super::{ModuleDef, ViewDef};
use crate::{AlgebraicType, ProductType, TypeError, Typespace};

impl ModuleDef {
    /// This module and all within it, in the order of their functions' numbers, each with what its names begin with outside of it:
    /// nothing for the root, `outer.inner.` for a module within a module.
    pub fn flatten(&self) -> Vec<(String, &ModuleDef)> {
        let mut modules = Vec::new();
        add(self, String::new(), &mut modules);
        modules
    }
}

impl ViewDef {
    /// The type of the view's rows, without references; `None` if it returns neither an array nor an option of rows.
    ///
    /// # Errors
    /// As [`Typespace::inline`].
    pub fn row_type(&self, types: &Typespace) -> Result<Option<ProductType>, TypeError> {
        let row = match types.inline(&self.return_type)? {
            AlgebraicType::Array(row) => *row,
            option => match option.as_option() {
                Some(row) => row.clone(),
                None => return Ok(None),
            },
        };
        Ok(match row {
            AlgebraicType::Product(row) => Some(row),
            _ => None,
        })
    }
}

/// Recursion is bounded by the depth that decoding allows.
fn add<'a>(def: &'a ModuleDef, prefix: String, modules: &mut Vec<(String, &'a ModuleDef)>) {
    modules.push((prefix.clone(), def));
    for submodule in &def.submodules {
        add(&submodule.module, format!("{prefix}{}.", submodule.namespace), modules);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::module_def::Submodule;

    #[test]
    fn a_module_comes_before_those_within_it() {
        let module = |submodules| ModuleDef { submodules, ..ModuleDef::default() };
        let named = |namespace: &str, module| Submodule { namespace: namespace.into(), module };
        let root =
            module(vec![named("a", module(vec![named("b", module(Vec::new()))])), named("c", module(Vec::new()))]);
        let prefixes: Vec<String> = root.flatten().into_iter().map(|(prefix, _)| prefix).collect();
        assert_eq!(prefixes, ["", "a.", "a.b.", "c."]);
    }
}
