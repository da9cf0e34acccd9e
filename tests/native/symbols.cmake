# Fails if one of OBJECTS (a list with "|"), which are built for one instruction set, defines a symbol outside their
# NAMESPACE: the linker could keep that copy for other objects, and a CPU without the instruction set would run it.
string(REPLACE "|" ";" objects "${OBJECTS}")
foreach(object IN LISTS objects)
  execute_process(COMMAND ${NM} --demangle --defined-only --extern-only ${object} OUTPUT_VARIABLE symbols
                  COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCHALL "[^\n]+" symbols "${symbols}")
  if(NOT symbols)
    message(FATAL_ERROR "${object} defines nothing")
  endif()
  foreach(symbol IN LISTS symbols)
    if(NOT symbol MATCHES "${NAMESPACE}")
      message(SEND_ERROR "${object} defines outside ${NAMESPACE}: ${symbol}")
    endif()
  endforeach()
endforeach()
