package system

const thief = "thief"
