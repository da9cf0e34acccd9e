# cases_text.hpp with the text of cases.txt: adds its folder to a target of tests.
function(fastconv_target_cases target)
  set(source ${PROJECT_SOURCE_DIR}/tests)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${source}/cases.txt)
  file(READ ${source}/cases.txt cases)
  configure_file(${source}/native/cases_text.hpp.in ${CMAKE_CURRENT_BINARY_DIR}/cases_text.hpp @ONLY)
  target_include_directories(${target} PRIVATE ${CMAKE_CURRENT_BINARY_DIR})
endfunction()
