"""The words of a recorder's office: instrument types as they stand in the field, and who deals with whom."""

from __future__ import annotations

from tasks.sample.scans import Kind

MID_TYPES = (
    "DEED", "TRUSTEES DEED", "TAX DEED", "Transfer on Death Deed", "DEED RESTRICTIONS", "RIGHT OF WAY",
    "EASEMENT", "TRUST AGREEMENT", "HEIRSHIP", "LAST WILL AND TESTAM", "LIVING WILL", "AGREEMENT",
    "AGREEMENT-DEEDS", "CONTRACT TO SELL", "OPTION", "PROTECTIVE COVENANT", "AMENDED PROTECTIVE C",
    "PROTECTIVE COV TERMI", "MINERAL DEED", "ROYALTY DEED", "ASSIGN OIL GAS  MIN", "MINERAL RIGHT  ROYA",
    "LEASE ASSIGNMENT", "ASSIGNMENT OF LEASES", "LEASE CONTRACT", "AMENDMENT TO LEASE",
    "NOTICE TO RENEW LEAS", "JUDGMENT OR ORDER", "EMINENT DOMAIN", "DECLARATION", "AMENDED DECLARATION",
    "SUPPLEMENT", "SUPPLEMENT TO COVENA", "DECLARATION OF ROAD", "ARCHITECTURAL REVIEW",
    "ENVIRONMENTAL PROTEC", 'AFFIDAVIT "T"', "PATENT", "WAIVER", "CERT OF SALESEIZED", "RECEIVER",
    "AMENDMENT(T)", "AMENDMENT(W)", "MISCELLANEOUS", 'MISCELLANEOUS "T"', 'MISCELLANEOUS "C"',
    "REVOCATION  CANCELL", "RECISSION OF FORECLO", "VOID LEASES 16TH SEC", "- [DEED 90W]",
)  # fmt: skip
"""The types of the mid-filtered stage (WORKLOADS 1), but for plats and SEALED."""

PLAT_TYPES = ("SUBDIVISION PLATS", "PLAT FILED", "CORRECTION OF PLAT", "MAP", "SURVEYS")
OTHER_TYPES = (
    "DEED OF TRUST",
    "CANCELLATION",
    "POWER OF ATTORNEY",
    "LIEN",
    "SUBSTITUTED TRUSTEE",
    "UCC FILING",
)
SEALED_TYPE = "SEALED"

PARTIES = (
    "LADNER JAMES R", "FAVRE ETHEL M", "NECAISE CLAUDE", "MORAN RUBY J", "SMITH & SONS LLC",
    "O'NEAL PATRICK", "DE L'ISLE MARIE", "PINE RIDGE LAND CO", "SAMPLE COUNTY", "BANK OF THE SOUTH",
    "CUEVAS ARNOLD", "GARCIA-LOPEZ ANA", 'DUBUISSON E J "BUD"', "HAAS WILLIAM EST",
    "FIRST BAPTIST CHURCH, INC.", "ST. STANISLAUS COLLEGE", "BAYOU <EAST> LP", "MUÑOZ CARLOS",
    "STATE OF MISSISSIPPI", "WEEKS J D ET UX", "LADNER ESTATE & TRUST", "A & B TIMBER", "KERGOSIEN LOUIS",
    "PERNICIARO ROSE", "JOHNSON   MARY ANN", "LOTT THOMAS JR", "SAUCIER VIRGIL", "16TH SECTION TRUST",
    "NELSON & NELSON PA", "BREWER GRACE", "GULF TITLE & ABSTRACT CO", "BOND ALVIN",
)  # fmt: skip
"""32 names with what breaks parsers: ampersands, quotes, angle brackets, commas, accents, runs of spaces."""

_KINDS = {
    "historical": (Kind.BILEVEL,) * 7 + (Kind.GREY,) * 5 + (Kind.TIFF,) * 3 + (Kind.MIXED,),
    "duprocess": (Kind.BILEVEL,) * 9 + (Kind.GREY,) * 3 + (Kind.OCRED,) * 3 + (Kind.MIXED,),
    "direct": (Kind.BILEVEL,) * 7 + (Kind.GREY,) * 4 + (Kind.OCRED,) * 4 + (Kind.TIFF,),
}
_LONG = (1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 5, 6, 8, 12)
_PAGES = {
    Kind.BILEVEL: _LONG,
    Kind.OCRED: _LONG,
    Kind.TIFF: (1, 1, 2, 3),
    Kind.GREY: (1, 1, 1, 2),
    Kind.MIXED: (2, 2, 2, 3),
    Kind.PLAT: (1,),
}


def nature(source: str, dice: int) -> tuple[Kind, str, int]:
    """Kind of file, instrument type and page count of a document, from 64 random bits.

    Of the types a third is DEED, one in 13 a plat and one in 10 not wanted by the mid-filtered stage.
    """
    roll = dice >> 32 & 0xFF
    if roll < 20:
        return Kind.PLAT, PLAT_TYPES[roll % 5], 1
    kind = _KINDS[source][dice >> 40 & 15]
    pages = _PAGES[kind][(dice >> 44 & 15) % len(_PAGES[kind])]
    return kind, _type(roll, dice >> 48 & 0xFFFF), pages


def _type(roll: int, more: int) -> str:
    if roll < 105:
        return ("DEED", "DEED - WARRANTY", "DEED - QUITCLAIM")[roll % 3]
    if roll < 130:
        return OTHER_TYPES[roll % 6]
    return MID_TYPES[more % len(MID_TYPES)]
