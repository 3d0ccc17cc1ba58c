//! What a field may be. Types are judged by traits, which the compiler knows; their names choose the words of an error.

use proc_macro2::TokenStream;
use quote::quote_spanned;
use syn::spanned::Spanned;
use syn::{Error, Path, Result, Type};

/// Refuses what no trait could accept: what two processes cannot share whatever it is made of.
pub(crate) fn check_type(field: &str, ty: &Type) -> Result<()> {
    let refuse = |why: &str| Err(Error::new_spanned(ty, format!("field `{field}`: {why}")));
    match ty {
        Type::Array(array) => check_type(field, &array.elem),
        Type::Group(group) => check_type(field, &group.elem),
        Type::Paren(paren) => check_type(field, &paren.elem),
        Type::Ptr(_) | Type::Reference(_) | Type::FnPtr(_) => refuse(
            "an address means nothing in another process; put the data itself here, as an array or a message",
        ),
        Type::Slice(_) => refuse("a field has one size: use an array, or a topic of slices"),
        Type::Tuple(_) => {
            refuse("the layout of a tuple is not fixed: use a struct that derives `Message`")
        }
        _ => Ok(()),
    }
}

/// The kind of a field, as an expression. If the type is no message, the error stands at the type.
pub(crate) fn kind(shmbus: &Path, ty: &Type) -> TokenStream {
    let span = ty.span();
    match hint(ty) {
        // A trait of which each message is one, which says more of a well-known type that is none.
        Some(hint) => {
            let hint = proc_macro2::Ident::new(hint, span);
            quote_spanned!(span=> <#ty as #shmbus::__derive::#hint>::KIND)
        }
        None => quote_spanned!(span=> <#ty as #shmbus::Message>::KIND),
    }
}

/// Which trait has the words for a type of this name.
fn hint(ty: &Type) -> Option<&'static str> {
    let Type::Path(path) = ty else { return None };
    match path.path.segments.last()?.ident.to_string().as_str() {
        "usize" => Some("NoUsize"),
        "isize" => Some("NoIsize"),
        "bool" => Some("NoBool"),
        "char" => Some("NoChar"),
        "u128" | "i128" => Some("NoLarge"),
        "String" | "str" => Some("NoText"),
        "Vec" => Some("NoList"),
        "Box" | "Rc" | "Arc" | "NonNull" => Some("NoPointer"),
        "NonZero" => Some("NoNonZero"),
        "Option" => Some("NoOption"),
        _ => None,
    }
}
