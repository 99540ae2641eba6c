# Runs a script in a safe interpreter whose only commands are Tcl's pure ones and recorders of everything else.
# Arguments: folder, script (below the folder), answers (a Tcl dict: beginning of a call -> what it returns).
# Output: a JSON list of calls, each a list of words; a call's value, unless answered, is the call itself as one word.
lassign $argv root script answers
set calls {}

proc json {text} {
    set out {}
    foreach char [split $text {}] {
        scan $char %c code
        append out [expr {$char in {\" \\} ? "\\$char" : $code < 32 || $code > 126 ? [format {\u%04x} $code] : $char}]
    }
    return "\"$out\""
}

proc record {args} {
    global calls answers
    lappend calls "\[[join [lmap word $args {json $word}] ,]\]"
    dict for {start value} $answers {
        if {[string match "$start*" $args]} { return $value }
    }
    return $args
}

proc pure_file {verb args} {
    switch -- $verb {
        join - dirname - tail - normalize { return [file $verb {*}$args] }
        default { return [record file $verb {*}$args] }
    }
}

proc include {child path} {
    global root
    set full [file normalize $path]
    if {[string first [file normalize $root]/ $full] != 0} { error "source outside the build folder: $path" }
    record source [string range $full [string length [file normalize $root]/] end]
    set channel [open $full]
    set text [read $channel]
    close $channel
    set before [interp eval $child {set ::nmsat_script}]
    interp eval $child [list set ::nmsat_script $full]
    interp eval $child $text
    interp eval $child [list set ::nmsat_script $before]
}

set child [interp create -safe]
interp limit $child commands -value 2000000
interp limit $child time -seconds [expr {[clock seconds] + 30}]
foreach {name target} {record record file pure_file} { interp alias $child $name {} $target }
interp alias $child source {} include $child
interp eval $child {
    set ::nmsat_script {}
    rename info nmsat_info
    proc info {args} {
        if {$args eq "script"} { return $::nmsat_script }
        return [uplevel 1 [list nmsat_info {*}$args]]
    }
    proc unknown {args} { return [record {*}$args] }
    foreach hidden {puts exit cd} { proc $hidden {args} "return \[record $hidden {*}\$args\]" }
}
if {[catch {include $child [file join $root $script]} message]} {
    lappend calls "\[[json error],[json $message]\]"
}
puts "\[[join $calls ",\n"]\]"
