/* Just enough XML to read what clouds answer: the text of an element by its name.  Attributes, namespaces and the document's
 * form are passed over; nothing is ever expanded but characters, so a hostile document costs no more than its own length. */
#ifndef PT_CLOUD_XML_H
#define PT_CLOUD_XML_H
#include "base/buf.h"

struct pt_xml {
	const char *p;
	size_t n;
};
/* Find the next element called name in *rest, at any depth: its content goes to *ret, *rest moves behind it.  False: there is
 * none.  An element within one of the same name ends the outer one too early; no document that we read has that. */
bool pt_xml_next(struct pt_xml *rest, const char *name, struct pt_xml *ret);
/* Append the text of the first element called name in doc to out, its character references resolved.  False: there is none. */
bool pt_xml_text(struct pt_xml doc, const char *name, struct pt_buf *out);
#endif
