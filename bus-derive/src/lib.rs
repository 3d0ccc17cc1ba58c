//! `#[derive(Message)]` and `#[derive(MessageEnum)]` of shmbus. Use them as `shmbus::Message` and `shmbus::MessageEnum`.
//!
//! What is wrong with the source is said here, at the field where it is. What a type is the compiler says, by traits: a name decides nothing. Padding is found when the
//! constants of the message are evaluated: `shmbus::Kind::of_struct`.

mod fields;

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{
    Attribute, Data, DeriveInput, Error, Field, Fields, Ident, LitInt, LitStr, Member, Path,
    Result, Token, parse_quote,
};

/// Longest name of a message, in bytes; as in `shmbus`.
const NAME_MAX: usize = 120;
/// Largest alignment of a message; as in `shmbus`.
const ALIGN_MAX: u64 = 4096;

/// Describes a `#[repr(C)]` struct with named fields: name, version, fields and layout hash.
///
/// `#[message(name = "md.Quote", version = 2)]` gives the name (else that of the struct) and the version (else 1). Beside it stand
/// `Clone` and `Copy`. Fields are integers of 8 to 64 bits, `f32`, `f64`, arrays,
/// other messages, `FixedStr<N>`, `Bool` and `Enum<E>`. A field whose name begins with `_` is padding: part of the layout,
/// not shown by tools.
///
/// A `#[repr(transparent)]` struct with one field is as a field, and as a message, what is in it: tools and other languages see that.
///
/// No other derive is needed. bytemuck's `Pod` and `Zeroable` may be derived as well: this macro implements neither, so that they do not collide, and messages are not
/// `Pod` where nobody asked for it.
///
/// `#[message(crate = "path")]` says what `shmbus` is called here: for a crate that is renamed, or that comes through another one (`"facade::shmbus"`).
///
/// Refused with a message that names the field: bytes that belong to no field, pointers and references, `usize`, `bool`, `char`,
/// generics, tuple structs that are not transparent, enums and unions, and what is neither `repr(C)` nor transparent.
#[proc_macro_derive(Message, attributes(message))]
pub fn derive_message(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let input = syn::parse_macro_input!(input as DeriveInput);
    message(&input).unwrap_or_else(Error::into_compile_error).into()
}

/// Describes an enum without data, so that messages carry it as `Enum<Side>` and tools print its names.
///
/// It needs a `#[repr]` of `u8` to `u64` or `i8` to `i64`, and `Copy`. `#[message(name = "md.Side")]` gives the name, else it is that of the enum.
#[proc_macro_derive(MessageEnum, attributes(message))]
pub fn derive_message_enum(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let input = syn::parse_macro_input!(input as DeriveInput);
    message_enum(&input).unwrap_or_else(Error::into_compile_error).into()
}

fn message(input: &DeriveInput) -> Result<TokenStream> {
    let ident = &input.ident;
    if let Some(transparent) = transparent(input) {
        return transparent;
    }
    let fields = named_fields(input)?;
    let mut wrong = Wrong(None);
    if !input.generics.params.is_empty() {
        wrong.add(Error::new_spanned(
            &input.generics,
            "a message has no parameters: its layout is shared with other programs",
        ));
    }
    wrong.add_all(check_struct_repr(input));
    let attributes = Attributes::of(input, &mut wrong);
    let shmbus = &attributes.shmbus;
    let (mut entries, mut names, mut types) = (Vec::new(), Vec::new(), Vec::new());
    for field in fields {
        let Some(name) = &field.ident else { continue };
        let text = plain(name);
        if !is_identifier(&text) {
            wrong.add(Error::new_spanned(
                name,
                "the name of a field is made of ASCII letters, digits and `_`",
            ));
        }
        wrong.add_all(fields::check_type(&text, &field.ty));
        let kind = fields::kind(shmbus, &field.ty);
        names.push(name);
        types.push(&field.ty);
        entries.push(quote! {
            #shmbus::__derive::Field::new(#text, #kind, ::core::mem::offset_of!(#ident, #name))
        });
    }
    wrong.end()?;
    let (name, version) = (attributes.name, attributes.version);
    Ok(quote! {
        // SAFETY: `of_struct` compiles only if the fields that it is told, whose offsets the compiler states, cover each byte of the type.
        #[automatically_derived]
        unsafe impl #shmbus::Message for #ident {
            const NAME: &'static str = #name;
            const VERSION: u32 = #version;
            const FIELDS: &'static [#shmbus::__derive::Field] = &[#(#entries),*];
            const KIND: &'static #shmbus::__derive::Kind = &#shmbus::__derive::Kind::of_struct(
                <Self as #shmbus::Message>::NAME,
                <Self as #shmbus::Message>::VERSION,
                ::core::mem::size_of::<#ident>(),
                ::core::mem::align_of::<#ident>(),
                <Self as #shmbus::Message>::FIELDS,
            );
        }
        // Another macro may have changed the struct since this one has seen it.
        const _: fn(&#ident) = |message| {
            #(let _: &#types = &message.#names;)*
        };
        // Refused here, not where it is used first.
        const _: &#shmbus::__derive::Kind = <#ident as #shmbus::Message>::KIND;
    })
}

/// The fields of a `#[repr(C)]` struct.
fn named_fields(input: &DeriveInput) -> Result<&Punctuated<Field, Token![,]>> {
    let ident = &input.ident;
    match &input.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(fields) if !fields.named.is_empty() => Ok(&fields.named),
            Fields::Unnamed(_) => Err(Error::new_spanned(
                ident,
                "a message has named fields: tools and other languages show their names",
            )),
            _ => Err(Error::new_spanned(ident, "a message has at least one field")),
        },
        Data::Enum(_) => Err(Error::new_spanned(
            ident,
            format!(
                "an enum is not a message: derive `MessageEnum`, and use `Enum<{ident}>` as the type of a field"
            ),
        )),
        Data::Union(_) => Err(Error::new_spanned(
            ident,
            "a union is not a message: nothing says which of its fields is meant",
        )),
    }
}

/// A `#[repr(transparent)]` struct, if it is one.
fn transparent(input: &DeriveInput) -> Option<Result<TokenStream>> {
    let Data::Struct(data) = &input.data else { return None };
    let reprs = reprs(&input.attrs).ok()?;
    if !reprs.iter().any(|(name, _)| name == "transparent") {
        return None;
    }
    let ident = &input.ident;
    let mut wrong = Wrong(None);
    if !input.generics.params.is_empty() {
        wrong.add(Error::new_spanned(
            &input.generics,
            "a message has no parameters: its layout is shared with other programs",
        ));
    }
    let attributes = Attributes::of(input, &mut wrong);
    if let Some(span) = attributes.name_span.or(attributes.version_span) {
        wrong.add(Error::new(
            span,
            "a transparent struct has no name and no version of its own: it is what is in it",
        ));
    }
    let mut fields = data.fields.iter();
    let (Some(field), None) = (fields.next(), fields.next()) else {
        wrong.add(Error::new_spanned(ident, "a transparent message has exactly one field"));
        return Some(wrong.end().map(|()| TokenStream::new()));
    };
    let name = field.ident.as_ref().map_or_else(|| "0".to_owned(), plain);
    wrong.add_all(fields::check_type(&name, &field.ty));
    if let Err(error) = wrong.end() {
        return Some(Err(error));
    }
    let (shmbus, ty) = (&attributes.shmbus, &field.ty);
    let member = field.ident.clone().map_or_else(|| Member::from(0), Member::from);
    let kind = fields::kind(shmbus, ty);
    Some(Ok(quote! {
        // SAFETY: it is its one field (`repr(transparent)`), which is a message.
        #[automatically_derived]
        unsafe impl #shmbus::Message for #ident {
            const NAME: &'static str = <#ty as #shmbus::Message>::NAME;
            const VERSION: u32 = <#ty as #shmbus::Message>::VERSION;
            const FIELDS: &'static [#shmbus::__derive::Field] = <#ty as #shmbus::Message>::FIELDS;
            const KIND: &'static #shmbus::__derive::Kind = #kind;
        }
        const _: fn(&#ident) = |message| {
            let _: &#ty = &message.#member;
        };
        const _: &#shmbus::__derive::Kind = <#ident as #shmbus::Message>::KIND;
    }))
}

fn message_enum(input: &DeriveInput) -> Result<TokenStream> {
    let ident = &input.ident;
    let Data::Enum(data) = &input.data else {
        return Err(Error::new_spanned(ident, "MessageEnum is for enums: derive `Message` here"));
    };
    let mut wrong = Wrong(None);
    if !input.generics.params.is_empty() {
        wrong.add(Error::new_spanned(&input.generics, "an enum in a message has no parameters"));
    }
    if data.variants.is_empty() {
        wrong.add(Error::new_spanned(ident, "an enum in a message has at least one variant"));
    }
    for variant in &data.variants {
        if !matches!(variant.fields, Fields::Unit) {
            wrong.add(Error::new_spanned(
                &variant.fields,
                format!(
                    "variant `{}` carries data, which an enum in a message does not",
                    variant.ident
                ),
            ));
        }
        if !is_identifier(&plain(&variant.ident)) {
            wrong.add(Error::new_spanned(
                &variant.ident,
                "the name of a variant is made of ASCII letters, digits and `_`",
            ));
        }
    }
    const REPRS: [&str; 8] = ["u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64"];
    let repr = reprs(&input.attrs)?.into_iter().find(|(name, _)| REPRS.contains(&name.as_str()));
    if repr.is_none() {
        wrong.add(Error::new_spanned(
            ident,
            format!("`{ident}` needs `#[repr(u8)]`, or another integer of 8 to 64 bits: its size is shared with other programs"),
        ));
    }
    let attributes = Attributes::of(input, &mut wrong);
    if let Some(span) = attributes.version_span {
        wrong.add(Error::new(span, "an enum has no version: its names and values are compared"));
    }
    wrong.end()?;
    let Some((repr, span)) = repr else { return Ok(TokenStream::new()) };
    let shmbus = &attributes.shmbus;
    let repr = Ident::new(&repr, span);
    let name = attributes.name;
    let variants: Vec<_> = data.variants.iter().map(|variant| &variant.ident).collect();
    let names = variants.iter().map(|variant| plain(variant));
    Ok(quote! {
        #[automatically_derived]
        impl #shmbus::MessageEnum for #ident {
            const NAME: &'static str = #name;
            const VARIANTS: &'static [#shmbus::__derive::Variant] = &[#(
                #shmbus::__derive::Variant { name: #names, value: #ident::#variants as #repr as i128 }
            ),*];
            type Repr = #repr;
            #[inline]
            fn to_repr(self) -> #repr {
                self as #repr
            }
            #[inline]
            fn from_repr(repr: #repr) -> ::core::option::Option<Self> {
                #(if repr == #ident::#variants as #repr {
                    return ::core::option::Option::Some(#ident::#variants);
                })*
                ::core::option::Option::None
            }
        }
        const _: &#shmbus::__derive::Kind = <#shmbus::Enum<#ident> as #shmbus::Message>::KIND;
    })
}

/// Errors so far, so that all are shown at once.
struct Wrong(Option<Error>);

impl Wrong {
    fn add(&mut self, error: Error) {
        match &mut self.0 {
            Some(all) => all.combine(error),
            None => self.0 = Some(error),
        }
    }

    fn add_all(&mut self, result: Result<()>) {
        if let Err(error) = result {
            self.add(error);
        }
    }

    fn end(self) -> Result<()> {
        self.0.map_or(Ok(()), Err)
    }
}

/// What `#[message(...)]` says.
struct Attributes {
    name: String,
    name_span: Option<Span>,
    version: u32,
    version_span: Option<Span>,
    /// Where this crate's traits are.
    shmbus: Path,
}

impl Attributes {
    fn of(input: &DeriveInput, wrong: &mut Wrong) -> Attributes {
        let mut attributes = Attributes {
            name: plain(&input.ident),
            name_span: None,
            version: 1,
            version_span: None,
            shmbus: parse_quote!(::shmbus),
        };
        for attribute in input.attrs.iter().filter(|attribute| attribute.path().is_ident("message"))
        {
            wrong.add_all(attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("name") {
                    let name: LitStr = meta.value()?.parse()?;
                    attributes.name = name.value();
                    attributes.name_span = Some(name.span());
                } else if meta.path.is_ident("version") {
                    let version: LitInt = meta.value()?.parse()?;
                    attributes.version = version.base10_parse()?;
                    attributes.version_span = Some(version.span());
                } else if meta.path.is_ident("crate") {
                    let path: LitStr = meta.value()?.parse()?;
                    attributes.shmbus = path.parse_with(Path::parse_mod_style)?;
                } else {
                    return Err(meta.error(
                        "expected `name = \"md.Quote\"`, `version = 1` or `crate = \"path::to::shmbus\"`",
                    ));
                }
                Ok(())
            }));
        }
        if !is_type_name(&attributes.name) {
            wrong.add(Error::new(
                attributes.name_span.unwrap_or_else(|| input.ident.span()),
                "the name of a message is made of ASCII letters, digits and `_`, with dots between (`md.Quote`), up to 120 bytes, \
                 and is not that of a field type: choose one with `#[message(name = \"...\")]`",
            ));
        }
        attributes
    }
}

fn check_struct_repr(input: &DeriveInput) -> Result<()> {
    let reprs = reprs(&input.attrs)?;
    let refuse = |span, what: &str| Err(Error::new(span, what));
    for (name, span) in &reprs {
        if name.starts_with("packed") {
            return refuse(*span, "a message is not packed: its fields are read by reference");
        }
        let aligned = name.strip_prefix("align(").and_then(|rest| rest.strip_suffix(')'));
        let given = aligned.and_then(|given| given.parse::<u64>().ok());
        if given.is_some_and(|given| given > ALIGN_MAX) {
            return refuse(*span, "a message is not aligned to more than 4096, the size of a page");
        }
    }
    if !reprs.iter().any(|(name, _)| name == "C") {
        let what = format!(
            "`{}` needs `#[repr(C)]`: without it, another compilation may order the fields differently",
            input.ident
        );
        return refuse(input.ident.span(), &what);
    }
    Ok(())
}

/// The words of all `#[repr(...)]`, without spaces.
fn reprs(attributes: &[Attribute]) -> Result<Vec<(String, Span)>> {
    let mut words = Vec::new();
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("repr")) {
        let metas =
            attribute.parse_args_with(Punctuated::<TokenTrees, Token![,]>::parse_terminated)?;
        words.extend(metas.into_iter().map(|TokenTrees(text, span)| (text, span)));
    }
    Ok(words)
}

/// One word of a `repr`, such as `align(64)`.
struct TokenTrees(String, Span);

impl syn::parse::Parse for TokenTrees {
    fn parse(input: syn::parse::ParseStream<'_>) -> Result<Self> {
        let meta: syn::Meta = input.parse()?;
        let span = meta.span();
        Ok(TokenTrees(quote!(#meta).to_string().replace(' ', ""), span))
    }
}

/// A name without the `r#` of a raw identifier.
fn plain(ident: &Ident) -> String {
    let text = ident.to_string();
    text.strip_prefix("r#").map_or(text.clone(), str::to_owned)
}

fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.len() <= NAME_MAX
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn is_type_name(text: &str) -> bool {
    const TAKEN: [&str; 12] =
        ["u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64", "f32", "f64", "bool", "text"];
    text.len() <= NAME_MAX && text.split('.').all(is_identifier) && !TAKEN.contains(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_named_but_what_the_attribute_says() {
        let attribute: Attribute = parse_quote!(#[message(crate = "facade::bus")]);
        let mut made = String::new();
        for mut input in [
            parse_quote!(
                #[repr(C)]
                struct A {
                    a: u64,
                    b: Vec<u8>,
                }
            ),
            parse_quote!(
                #[repr(transparent)]
                struct A(u64);
            ),
        ] {
            let input: &mut DeriveInput = &mut input;
            input.attrs.push(attribute.clone());
            made += &message(input).unwrap().to_string();
        }
        let mut input: DeriveInput = parse_quote!(
            #[repr(u8)]
            enum A {
                B,
            }
        );
        input.attrs.push(attribute);
        made += &message_enum(&input).unwrap().to_string();
        assert!(made.contains("facade :: bus :: Message for A"), "{made}");
        assert!(made.contains("facade :: bus :: MessageEnum for A"), "{made}");
        assert!(!made.contains("shmbus"), "{made}");
    }
}
